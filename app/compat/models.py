"""The models of an organisation where the synth-ai clients look for them; who asks models may see them."""

from fastapi import APIRouter
from pydantic import BaseModel

from app.deps import SessionDep
from app.inference import models
from app.inference.models import FineTunedOut
from app.orgs.auth import AskingKey

router = APIRouter(prefix="/learning/models", include_in_schema=False)


class FineTunedList(BaseModel):
    object: str
    data: list[FineTunedOut]
    models: list[FineTunedOut]


@router.get("")
async def list_models(key: AskingKey, session: SessionDep) -> FineTunedList:
    tuned = await models.list_fine_tuned(session, key)
    return FineTunedList(object="list", data=tuned, models=tuned)


router.add_api_route("/{model_id:path}", models.get_model)
