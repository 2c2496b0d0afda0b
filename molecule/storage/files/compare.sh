#!/bin/sh
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
#
# In a guest, after write.sh has ended: reads from the disk what was acknowledged, and prints what is missing or wrong, and the
# longest pause between two lines.
set -eu
sync
echo 3 > /proc/sys/vm/drop_caches
awk '
    NR == FNR { kept[$1] = $2; next }
    {
        acknowledged++
        if (kept[$1] != $1 * 7919 % 1000003) lost++
        if (before && $2 - before > pause) pause = $2 - before
        before = $2
    }
    END { printf "{\"acknowledged\": %d, \"lost\": %d, \"longest_pause\": %.1f}\n", acknowledged, lost, pause }
' /var/kn-written /run/kn-acknowledged
