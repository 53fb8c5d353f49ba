"""The CustomResourceDefinition of ModelDeployment, made from the pydantic models.

``schema`` turns the models into a structural schema, ``rules`` says in CEL what spans fields, ``structural`` checks
that the API server will take the outcome, ``definition`` puts it together and ``reference`` describes it.
"""

from fairlead_operator.api.crd.definition import HEADER, definition, manifest
from fairlead_operator.api.crd.reference import condition_list, documented, modeldeployment
from fairlead_operator.api.crd.rules import RULES, Rule
from fairlead_operator.api.crd.structural import findings

__all__ = [
    "HEADER",
    "RULES",
    "Rule",
    "condition_list",
    "definition",
    "documented",
    "findings",
    "manifest",
    "modeldeployment",
]
