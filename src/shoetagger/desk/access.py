"""Who may look at the desk and who may write: those who may see, or answer, the tagging DAG."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException

from .dependencies import Person

DAG = "tag_new_images"


def person(user: Annotated[BaseUser, Depends(get_user)]) -> Person:
    """Return who is logged in; 401 where nobody is, 403 where they may not see the tagging DAG.

    Whoever may answer its required actions may write, as may Airflow's roles user, op and admin.
    """
    details = DagDetails(id=DAG, team_name=DagModel.get_team_name(DAG))
    manager = get_auth_manager()
    if not manager.is_authorized_dag(method="GET", details=details, user=user):
        raise HTTPException(403, f"you may not see the DAG {DAG}, and so not its pictures")
    may_write = manager.is_authorized_dag(
        method="PUT", access_entity=DagAccessEntity.HITL_DETAIL, details=details, user=user
    )
    return Person(user.get_name(), may_write)
