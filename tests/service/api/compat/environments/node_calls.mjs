// Calls a server with clients in JavaScript, and prints their answers as JSON.

import OpenAI from "openai";
import { InferenceClient } from "@huggingface/inference";
import { CohereClient, CohereClientV2 } from "cohere-ai";

const TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"];

const url = process.argv[2];
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
const chat = { model: "tiny-chat", messages: [{ role: "user", content: TEXTS[0] }], temperature: 0, max_tokens: 8 };
const text = { model: "tiny-chat", prompt: TEXTS[0], temperature: 0, max_tokens: 8 };
const stream = [];
for await (const chunk of await openai.chat.completions.create({ ...chat, stream: true })) {
  stream.push(chunk.choices[0]?.delta?.content ?? "");
}
let refusal = "";
try {
  await openai.embeddings.create({ model: "nobody", input: "x" });
} catch (error) {
  refusal = error.constructor.name;
}
const hub = (model) => new InferenceClient("unused").endpoint(`${url}/models/${model}`);
const cohere = new CohereClientV2({ environment: url, token: "unused" });
const old = new CohereClient({ environment: url, token: "unused" });
const answers = {
  "openai embeddings.create": (await openai.embeddings.create({ model: "embedder", input: TEXTS })).data,
  "openai chat.completions.create": (await openai.chat.completions.create(chat)).choices[0].message.content,
  "openai chat.completions.create, stream": stream,
  "openai completions.create": (await openai.completions.create(text)).choices[0].text,
  "openai models.list": (await openai.models.list()).data.map((model) => model.id),
  "openai moderations.create": (await openai.moderations.create({ model: "mood", input: TEXTS })).results,
  "openai refusal": refusal,
  "hub featureExtraction": await hub("embedder").featureExtraction({ inputs: TEXTS }),
  "hub textClassification": await hub("mood").textClassification({ inputs: TEXTS[0] }),
  "hub sentenceSimilarity": await hub("embedder").sentenceSimilarity({
    inputs: { source_sentence: TEXTS[0], sentences: TEXTS },
  }),
  "hub chatCompletion": (await hub("tiny-chat").chatCompletion(chat)).choices[0].message.content,
  "hub textGeneration": await hub("tiny-chat").textGeneration({
    inputs: TEXTS[0],
    parameters: { max_new_tokens: 8, temperature: 0 },
  }),
  "cohere v2 embed": await cohere.embed({
    model: "embedder",
    inputType: "search_query",
    texts: TEXTS,
    embeddingTypes: ["float"],
  }),
  "cohere v2 rerank": await cohere.rerank({ model: "ranking", query: "x", documents: TEXTS }),
  "cohere embed": await old.embed({ model: "embedder", texts: TEXTS }),
};
console.log(JSON.stringify(answers));
