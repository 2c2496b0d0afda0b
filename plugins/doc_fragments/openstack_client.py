# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the options in ``CLIENT_ARGUMENTS`` (module_utils/kilonova/cloud/client.py)."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cloud:
    description: Name of the cloud in O(clouds_file). Its user needs the role admin.
    type: str
    default: admin
  clouds_file:
    description: Path of the clouds.yaml file with the credentials.
    type: path
    default: /etc/openstack/clouds.yaml
  api_timeout:
    description: Seconds to wait for Keystone to answer, and, where something is changed, for an API that restarts.
    type: int
    default: 120
requirements:
  - python3-openstacksdk on the host
"""
