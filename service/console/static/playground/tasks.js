// The tasks of one call: the fields of each, the request that they make, and the view of its answer.

import { el, field } from "../dom.js";
import { figure } from "../format.js";
import { dataUrl, picker } from "./media.js";
import { bars } from "./scores.js";
import { similarity } from "./similarity.js";
import { answers, entities } from "./spans.js";

const TEXT = "Where is my parcel? Ada Lovelace sent it from London.";

const area = (name, value, rows = 4) => el("textarea", { name, rows, required: true }, value);
const line = (name, value, required = true) => el("input", { name, value, required });
const lines = (text) => text.split("\n").map((one) => one.trim()).filter(Boolean);

/** Return the body of /v1/predict. Several models make it a fan-out. */
function prediction(models, inputs, parameters = {}) {
  const of = models.length === 1 ? { model: models[0] } : { models };
  return { path: "v1/predict", body: { ...of, inputs, ...(Object.keys(parameters).length ? { parameters } : {}) } };
}

/** Return the tasks of a modality: they send one file, which the programs of the call read by its name. */
function ofFiles(modality) {
  const call = async (models, { file }, parameters) => ({
    ...prediction(models, { [modality]: await dataUrl(file) }, parameters), file: file.name,
  });
  return {
    [`${modality}-classification`]: {
      fields: () => [picker(modality)],
      call: (models, values, alike) => call(models, values, alike ? { top_k: null } : {}),
      view: ([found]) => bars(pairs(found)),
    },
    [`${modality}-feature-extraction`]: {
      fields: () => [picker(modality)],
      call: (models, values) => call(models, values),
      view: ([vector]) => el("p", {}, `A vector of ${vector.length} numbers: `, el("code", {}, `${vector.slice(0, 6).map(figure).join(", ")}, …`)),
    },
  };
}

const pairs = (found) => [found].flat().map((one) => [one.label, one.score]);

/**
 * A task has `fields`, a list of labelled controls; `call`, which returns, or promises, path and body for the models,
 * the values of the fields and whether all models have the task; and `view`, which shows one model's predictions.
 */
export const TASKS = {
  "text-classification": {
    fields: () => [field("Text", area("text", TEXT)), field("Second text", line("pair", "", false), "for pairs of texts")],
    // Other tasks refuse a parameter that their own users never set.
    call: (models, { text, pair }, alike) => prediction(models, pair ? { text, text_pair: pair } : text, alike ? { top_k: null } : {}),
    view: ([found]) => bars(pairs(found)),
  },
  "token-classification": {
    fields: () => [field("Text", area("text", TEXT))],
    call: (models, { text }, alike) => prediction(models, text, alike ? { aggregation_strategy: "simple" } : {}),
    view: ([found], { text }) => entities(text, found),
  },
  "question-answering": {
    fields: () => [field("Question", line("question", "Who sent the parcel?")), field("Context", area("context", TEXT))],
    call: (models, { question, context }) => prediction(models, { question, context }, { top_k: 3 }),
    view: ([found], { context }) => answers(context, found),
  },
  "zero-shot-classification": {
    fields: () => [
      field("Text", area("text", TEXT)),
      field("Candidate labels", line("labels", "delivery, music, travel"), "with commas between them"),
      el("label", { class: "check" }, el("input", { type: "checkbox", name: "multi" }), el("span", {}, "Several labels may be true at once")),
    ],
    call: (models, { text, labels, multi }) => prediction(models, text, { candidate_labels: labels.split(",").map((one) => one.trim()).filter(Boolean), ...(multi ? { multi_label: true } : {}) }),
    view: ([found]) => bars(found.labels.map((label, i) => [label, found.scores[i]])),
  },
  "fill-mask": {
    fields: () => [field("Text", area("text", "The capital of France is [MASK]."), "with the model's mask token")],
    call: (models, { text }) => prediction(models, text),
    view: ([found]) => (Array.isArray(found[0]) ? found : [found]).map((mask) => bars(mask.map((one) => [one.token_str.trim() || one.token_str, one.score]))),
  },
  "feature-extraction": {
    fields: () => [field("Texts", area("texts", "Where is my parcel?\nWhen does my package arrive?\nThe concert was wonderful.", 6), "one a line")],
    call: (models, { texts }) => (models.length === 1 ? { path: "v1/embeddings", body: { model: models[0], input: lines(texts) } } : prediction(models, lines(texts))),
    view: (vectors, { texts }) => similarity(lines(texts), vectors),
  },
  "text-ranking": {
    fields: () => [field("Query", line("query", "Who sent the parcel?")), field("Documents", area("documents", "Ada Lovelace sent it from London.\nThe parcel weighs two kilograms.\nConcerts begin at eight.", 6), "one a line")],
    call: (models, { query, documents }) =>
      models.length === 1
        ? { path: "v1/rerank", body: { model: models[0], query, documents: lines(documents) } }
        : prediction(models, lines(documents).map((document) => ({ text: query, text_pair: document }))),
    view: (scores, { documents }) => bars(lines(documents).map((document, i) => [document, scores[i].score]), figure),
  },
  ...ofFiles("image"),
  ...ofFiles("audio"),
};

/** Let a call cut texts that are too long for a model. */
export function cutting({ path, body }) {
  const truncation = path === "v1/predict" ? { parameters: { ...body.parameters, truncation: true } } : { truncation: true };
  return { path, body: { ...body, ...truncation } };
}

/** Return one result for each model: {model, version, digest, predictions, usage, timings}, or {model, error}. */
export function resultsOf(path, answer) {
  if (answer.results && path === "v1/predict") return answer.results;
  if (path === "v1/embeddings") return [{ ...answer, predictions: answer.data.map((one) => one.embedding) }];
  if (path !== "v1/rerank") return [answer];
  const scores = [];
  for (const { index, relevance_score: score } of answer.results) scores[index] = { score };
  return [{ ...answer, predictions: scores }];
}
