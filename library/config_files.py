#!/usr/bin/python3
# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Render and install all configuration files of a service in one call
version_added: "0.1.0"
description:
  - Renders each file from a template on the control computer (action plugin of the same name), merges INI overrides
    into it, and installs all files with one module call on the host.
  - Checks each file that names O(files[].options) on the host, before anything is written, against the options that
    the installed services register. Unknown sections and options, values of the wrong type and deprecated options
    are errors.
  - Installs all files of a call or, if one fails its check, none.
  - Searches templates as M(ansible.builtin.template) does, then in the project's C(templates/) directory, also for
    C({% include %}) and C({% import %}). C(trim_blocks) is on, undefined variables are errors, and the file ends with
    a newline.
options:
  files:
    description: The files and directories, in the order in which they are installed.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Absolute path on the host. A symbolic link there is replaced by the file.
        type: path
        required: true
      state:
        description:
          - V(file) installs a file, V(directory) creates a directory (missing parents get mode 0755), V(absent)
            removes a file, or a directory with everything in it.
        type: str
        choices: [file, directory, absent]
        default: file
      src:
        description: Template. A file needs exactly one of O(files[].src) and O(files[].content).
        type: str
      role:
        description: Role that has the template O(files[].src), if another role calls the module.
        type: str
      content:
        description: The text of the file.
        type: str
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Permissions as a quoted octal number. The default is 0644 for a file and 0755 for a directory.
        type: str
      overrides:
        description:
          - >-
            INI options merged into the rendered text, as {section: {option: value}}. Comments and order stay.
          - Null removes an option, a list repeats it, booleans become true or false.
        type: dict
      overrides_name:
        description: Variable that holds O(files[].overrides), for error messages.
        type: str
      options:
        description: >-
          Namespaces of oslo.config options (entry points C(oslo.config.opts)) that this file may use. Without them
          the file is not checked.
        type: list
        elements: str
      encoded:
        description: Set by the action plugin, the finished text in base64.
        type: str
  secrets:
    description:
      - Secret values to mask in the diff, in messages and in the result, also where a file has them escaped or quoted
        for a URL. Old secrets in the diff are found by the name of their option, by their place in a URL, and by the
        new secret in their place.
    type: list
    elements: str
    default: []
  backup:
    description: Keep the previous version of a changed file next to it, with a time stamp in its name.
    type: bool
    default: false
attributes:
  check_mode:
    description: Predicts changes, even if the user, group, directory or package does not exist yet.
    support: full
  diff_mode:
    description: Returns one entry for each changed file, with secrets masked.
    support: full
notes:
  - The check of options takes 2 to 3 seconds in each call that changes a checked file, since it imports the installed
    services.
author: The Kilonova authors (@kilonova)
"""

EXAMPLES = r"""
- name: Configure Nova
  config_files:
    files:
      - dest: /etc/nova/nova.conf
        src: nova.conf.j2
        group: nova
        mode: "0640"
        overrides: "{{ nova_conf_overrides }}"
        overrides_name: nova_conf_overrides
        options: [nova.conf, oslo.log, oslo.messaging, keystonemiddleware.auth_token]
      - dest: /etc/default/nova-consoleproxy
        content: |
          NOVA_CONSOLE_PROXY_TYPE=novnc
      - dest: /etc/nova/policy.d
        state: directory
        group: nova
        mode: "0750"
    secrets: "{{ secrets_values }}"
"""

RETURN = r"""
changed_files:
  description: Paths that were changed, created or removed, in the order of O(files).
  returned: always
  type: list
  elements: str
  sample: [/etc/nova/nova.conf]
written_files:
  description:
    - Those of RV(changed_files) whose content changed, or that were created or removed. Daemons must read these again,
      unlike files with only a new owner or mode.
  returned: always
  type: list
  elements: str
ansible_facts:
  description: Facts for later tasks of a dry run that depend on changed files.
  returned: in check mode
  type: dict
  contains:
    config_files_pending:
      description: Files that this call and earlier ones for the host would have written.
      type: list
      elements: str
needs_you:
  description: What a run cannot change itself, such as a directory in the place of a file, as sentences.
  returned: in check mode
  type: list
  elements: str
backup_files:
  description: "Backups, as {path of the file: path of the backup}."
  returned: when O(backup) is true
  type: dict
problems:
  description: Options that the installed services do not accept.
  returned: when a file fails its check
  type: list
  elements: dict
  contains:
    file: {description: Path of the file., type: str}
    section: {description: Section of the option., type: str}
    option: {description: Name of the option., type: str}
    value: {description: Value in the file; masked if the option is secret., type: str}
    why: {description: What is wrong., type: str}
    suggestion: {description: What to do instead., type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kilonova.config.config_files import ARGUMENT_SPEC, run


def main() -> None:
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
