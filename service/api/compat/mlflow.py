"""The route POST /invocations, in the form of MLflow's scoring server. probes.py has its other two routes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, StrictInt, StrictStr, TypeAdapter, ValidationError

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.inference_protocol.open_inference import InstancePredictions
from rootstock.service.api.inputs import GivenInput, InputForm
from rootstock.service.api.options import TimeoutHeader, Urgency, options_of
from rootstock.service.api.predict import predict_given, while_connected
from rootstock.service.api.strict import MAX_ITEMS, Strict
from rootstock.service.engine.core.errors import EngineError, InvalidInput, InvalidParameter, TooLarge, TooLong

router = APIRouter(route_class=BodyRoute)
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_COLUMNS = ("text", "text_pair", "question", "context", "image", "audio")
_ROWS: TypeAdapter[list[InputForm]] = TypeAdapter(Annotated[list[InputForm], Field(min_length=1, fail_fast=True)])


class DataframeSplit(Strict):
    """A table: the names of its columns, and its rows as lists. The index is not read."""

    columns: list[StrictStr | StrictInt]
    data: list[list[Any]]
    index: Any = None


class InvocationsBody(Strict):
    """The body of an invocation: rows in one of four forms. `params` holds the model and its task's parameters.

    A row is a text, or an object of `text` and `text_pair`, of `question` and `context`, of `image` or `audio`.
    `inputs` may also be one text, or an object of columns. The only column of a table holds the texts, whatever
    its name.
    """

    dataframe_split: DataframeSplit | None = None
    dataframe_records: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    instances: Annotated[list[Any], Field(min_length=1)] | None = None
    inputs: Any = None
    params: dict[str, Any] = Field(default_factory=dict, examples=[{"model": "review-sentiment"}])


@router.post("/invocations")
async def invocations(
    body: InvocationsBody, request: Request, within: TimeoutHeader = None
) -> InstancePredictions:
    """Predict for the rows of a table or of a list, as /v1/predict does for inputs."""
    parameters = dict(body.params)
    model = parameters.pop("model", None)
    if not isinstance(model, str):
        raise InvalidParameter(
            "params names no model; send its reference as params: {model: …}; /v1/models lists them",
            "params.model",
        )
    form = _form(body)
    rows = _inputs(form, _rows(form, getattr(body, form)))
    options = options_of(Urgency(), request, within)
    call = predict_given(request, model, rows, parameters, None, options)
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise _spelled(error, form) from None
    return InstancePredictions(predictions=answer.predictions)


def _form(body: InvocationsBody) -> str:
    given = [name for name in _FORMS if getattr(body, name) is not None]
    if len(given) != 1:
        raise InvalidInput(f"the body has {' and '.join(given) or 'no rows'}; send one of {', '.join(_FORMS)}")
    return given[0]


def _rows(form: str, value: Any) -> list[Any]:
    """Return the rows of a form, each a text or an object. Raise InvalidInput for columns that do not fit."""
    if isinstance(value, DataframeSplit):
        return [_named(form, value.columns, row) for row in value.data]
    if isinstance(value, str):
        return [value]
    if not isinstance(value, dict):
        return value if isinstance(value, list) else [value]
    if any(not isinstance(column, list) for column in value.values()):
        return [value]
    if len({len(column) for column in value.values()}) > 1:
        raise InvalidInput(f"the columns of {form} have different lengths; send equally many values", form)
    return [_named(form, list(value), row) for row in zip(*value.values(), strict=True)]


def _named(form: str, columns: list[Any], row: Any) -> dict[str, Any]:
    if len(row) != len(columns) or len(set(columns)) != len(columns):
        raise InvalidInput(
            f"a row of {form} has {len(row)} values and there are {len(set(columns))} distinct columns; send one "
            "value for each column",
            form,
        )
    return {str(name): value for name, value in zip(columns, row, strict=True)}


def _inputs(form: str, rows: list[Any]) -> list[GivenInput]:
    """Return the inputs that the rows hold. Raise RequestValidationError for a row of another form."""
    if len(rows) > MAX_ITEMS:
        raise TooLarge(
            f"{form} has {len(rows)} rows; the limit of any list is {MAX_ITEMS}; send at most max_inputs of "
            "/v1/limits",
            form,
        )
    try:
        return _ROWS.validate_python([_unwrapped(row) for row in rows])
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", form, *one["loc"])} for one in problems]) from None


def _unwrapped(row: Any) -> Any:
    """Return the value of a row that has only one, unless its name is that of a known column."""
    if isinstance(row, dict) and len(row) == 1 and not row.keys() & set(_COLUMNS):
        return next(iter(row.values()))
    return row[0] if isinstance(row, list) and len(row) == 1 else row


def _spelled(error: EngineError, form: str) -> EngineError:
    """Return the error with the field names of this route."""
    if error.param is not None:
        error.param = error.param.replace("parameters", "params", 1).replace("inputs", form, 1)
    if isinstance(error, TooLong) and error.setting is not None:
        error.setting = error.setting.replace("parameters", "params", 1)
    return error
