#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_file
short_description: Generate the secrets that an inventory does not have yet
version_added: "0.1.0"
description:
  - Runs on the computer that runs Ansible, without a connection to a host. Reads the file of secrets, adds those that
    are missing from it and that no variable sets, and replaces the file at once, with mode 0600.
  - A secret once written is never changed. Comments in the file are not kept when a secret is added to it.
  - The file is encrypted with ansible-vault where it already is, or where it is new and a vault password is configured.
  - A file that others may read gets mode 0600.
options:
  path:
    description: The file, usually in C(group_vars) of the inventory. It and its directory are created.
    type: path
    required: true
  names:
    description: Variables to generate.
    type: list
    elements: str
    required: true
  length:
    description: Characters of a generated secret, letters and digits.
    type: int
    default: 32
attributes:
  check_mode:
    description: Predicts which secrets would be generated, and writes nothing.
    support: full
  diff_mode:
    description: Secrets are not shown; the names of new ones are in the result.
    support: none
notes:
  - Fails when the file is encrypted and no vault password fits, and when it holds anything but variables.
  - Secrets in RV(unread) become variables of the run only when it reads the file, for example with
    M(ansible.builtin.include_vars).
  - "Format of an encrypted file:
    https://docs.ansible.com/ansible/latest/vault_guide/vault_using_encrypted_content.html#format-of-files-encrypted-with-ansible-vault"
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Generate missing secrets
  secrets_file:
    path: "{{ inventory_dir }}/group_vars/all/secrets.yml"
    names: [keystone_admin_password, nova_messaging_password]
  run_once: true
"""

RETURN = r"""
generated:
  description: Names of the variables that were generated, in the order of O(names). Never their values.
  returned: success
  type: list
  elements: str
  sample: [keystone_admin_password]
unread:
  description:
    - Names of the variables that are in the file and that this run does not have, because they were just generated or
      because the file lies outside of the inventory.
  returned: success
  type: list
  elements: str
  sample: [keystone_admin_password]
path:
  description: The file of secrets.
  returned: success
  type: str
  sample: /home/me/kilonova/inventory/mysite/group_vars/all/secrets.yml
"""
