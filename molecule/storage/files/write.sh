#!/bin/sh
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
#
# In a guest: writes numbered lines to the disk until /run/kn-stop exists. A line that has been synced counts as acknowledged,
# and is noted in memory with the time.
set -eu
number=0
while [ ! -e /run/kn-stop ]; do
    number=$((number + 1))
    echo "$number $((number * 7919 % 1000003))" | dd of=/var/kn-written oflag=append conv=notrunc,fsync status=none
    read -r now _ < /proc/uptime
    echo "$number $now" >> /run/kn-acknowledged
done
touch /run/kn-stopped
