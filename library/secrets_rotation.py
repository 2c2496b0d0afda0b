#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_rotation
short_description: Write the next stage of a rotation of secrets into their file
version_added: "0.1.0"
description:
  - Runs on the computer that runs Ansible, without a connection to a host. Changes the file of secrets at once, as
    M(secrets_file) does; it stays encrypted where it is.
  - The file holds the state of a rotation in C(secrets_rotation), with the other value of each secret. Hosts follow in
    the runs of site.yml after it. A rotation that has begun goes on, and gets no other values.
options:
  path:
    description: The file of secrets.
    type: path
    required: true
  state:
    description:
      - V(begun) generates a new value for each secret. Where there is nothing to add on hosts first, it is used at
        once, as with V(use).
      - V(use) makes the new values those that are used, and changes to the second of two accounts.
      - V(remove) says that the old values are not accepted any more. It and V(use) change nothing where the rotation is
        not in the stage before.
      - V(ended) removes the state of a rotation that is in its last stage.
    type: str
    choices: [begun, use, remove, ended]
    required: true
  classes:
    description: What can be rotated, with the names of the secrets. For O(state=begun).
    type: dict
    default: {}
  rotate:
    description: What to rotate, as a list or as a text with commas. Empty for all. For O(state=begun).
    type: raw
    default: []
  length:
    description: Characters of a generated secret, letters and digits.
    type: int
    default: 32
attributes:
  check_mode:
    description: Predicts which secrets would change, and writes nothing.
    support: full
  diff_mode:
    description: Secrets are not shown; their names are in the result.
    support: none
notes:
  - Fails where O(rotate) has an unknown word, where another rotation has begun, and where a secret is set elsewhere
    than in the file.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Begin to rotate the passwords of MariaDB
  secrets_rotation:
    path: "{{ secrets_path }}"
    state: begun
    classes: "{{ secrets_classes }}"
    rotate: database
  run_once: true
"""

RETURN = r"""
stage:
  description: The stage that the rotation is in, C(add), C(use) or C(remove). Empty where there is none.
  returned: success
  type: str
  sample: add
classes:
  description: What is being rotated.
  returned: success
  type: list
  elements: str
  sample: [database]
secrets:
  description: Names of the secrets that change. Never their values.
  returned: success
  type: list
  elements: str
  sample: [nova_database_password]
resumed:
  description: Whether the rotation had begun before this run.
  returned: success
  type: bool
  sample: false
"""
