# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A templar that works each variable out once.

For each value that it needs, Ansible works out all variables that this names. The maps of services name the same ones
a hundred times, and what comes of it is the same.
"""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from jinja2 import pass_context
from jinja2.runtime import Context


def templar_with(loader: DataLoader, variables: dict[str, Any]) -> Templar:
    """A templar that works out each variable when it is first needed, and keeps its value.

    The context of a template does so until it is rendered. The context of the first one serves all others here.
    """
    templar = Templar(loader=loader, variables=variables)

    @pass_context
    def keep_context(context: Context) -> None:
        templar.available_variables = context.parent

    templar.evaluate_expression(trust_as_template("keep_context()"), local_variables={"keep_context": keep_context})
    return templar
