"""An adapter behind a server, called as transformers' pipeline of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.predictions import RESULTS
from rootstock.adapters.media import MediaModality

if TYPE_CHECKING:
    from rootstock.adapters.client.client import Client

_GENERATION = "text-generation"
# The names that generation options have in transformers and on the server.
_OPTIONS = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "stop_strings": "stop"}


class RemotePipeline:
    """A function of texts or files, whose answers have the form of `transformers.pipeline(task, model)`.

    Tasks that transformers 5 has no pipeline for have the form of transformers 4. Two differ: feature extraction
    gives one pooled vector for each text, and text ranking one score for each pair.
    """

    def __init__(self, client: Client, model: str, task: str | None) -> None:
        """Ask `model` through `client`. Raise Misused for a task without a pipeline."""
        self._client = client
        self._model = model
        self.task: str = task or client.model(model)["task"]
        if self.task not in RESULTS and self.task != _GENERATION:
            raise Misused(f"there is no pipeline for {self.task}; choose {', '.join((*RESULTS, _GENERATION))}")

    def __call__(self, inputs: Any = None, candidate_labels: Any = None, **parameters: Any) -> Any:
        """Return the answer for one input, or a list of answers for a list of inputs.

        For a task of images or recordings, a string is the path of a file or a URL, as in transformers.
        `question` and `context` may stand in the place of an input. `candidate_labels` are those of a zero-shot
        classification. `parameters` are those of the pipeline. A generation takes `max_new_tokens`, `do_sample`
        and `return_full_text` among others, and is greedy unless `do_sample` is true.
        """
        if candidate_labels is not None:
            parameters["candidate_labels"] = candidate_labels
        if inputs is None:
            if not {"question", "context"} <= parameters.keys():
                raise Misused("there is no input; give one, or `question` and `context`")
            inputs = {name: parameters.pop(name) for name in ("question", "context")}
        if self.task == _GENERATION:
            return self._generated(inputs, parameters)
        single = not isinstance(inputs, list | tuple)
        if self.task.startswith(("image-", "audio-")):
            inputs = _opened(self.task, inputs) if single else [_opened(self.task, one) for one in inputs]
        results = self._client.predict_many(
            self._model, [inputs] if single else inputs, RESULTS[self.task], **parameters
        )
        answers = [result.raw for result in results]
        return self._shaped(answers, inputs, "top_k" in parameters) if single else self._listed(answers)

    def _shaped(self, answers: list[Any], inputs: Any, ranked: bool) -> Any:
        # transformers answers one text with a list of its one best label.
        listed = self.task == "text-classification" and isinstance(inputs, str) and not ranked
        return answers if listed else answers[0]

    def _listed(self, answers: list[Any]) -> Any:
        # transformers takes the only text of a list out of it.
        return answers[0] if self.task == "fill-mask" and len(answers) == 1 else answers

    def _generated(self, inputs: Any, parameters: dict[str, Any]) -> Any:
        full = parameters.pop("return_full_text", True)
        if not parameters.pop("do_sample", False):
            parameters["temperature"] = 0
        options = {_OPTIONS.get(name, name): value for name, value in parameters.items()}
        single = isinstance(inputs, str) or _is_chat(inputs)
        answers = [self._one_generated(one, full, options) for one in ([inputs] if single else inputs)]
        return answers[0] if single else answers

    def _one_generated(self, prompt: Any, full: bool, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        if isinstance(prompt, str):
            text = self._client.complete(self._model, prompt, **options).text
            return [{"generated_text": prompt + text if full else text}]
        text = self._client.chat(self._model, prompt, **options).text
        chat = [*prompt, {"role": "assistant", "content": text}]
        return [{"generated_text": chat if full else text}]


def _opened(task: str, value: Any) -> Any:
    """Return an input of images or recordings: as in transformers, a string is a URL or the path of a file."""
    modality: MediaModality = "image" if task.startswith("image-") else "audio"
    if not isinstance(value, str):
        return value
    if value.startswith(("http://", "https://", "data:")):
        return {modality: value}
    return {modality: Path(value)}


def _is_chat(inputs: Sequence[Any]) -> bool:
    return bool(inputs) and isinstance(inputs[0], Mapping)
