// A sentence for each event of the registry, with the state before and the state after.

const at = (version) => (version === null || version === undefined ? "none" : `v${version}`);
const plain = (value) => (typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value));

/** Write a state: the shares of a split, a version with its share, the fields of a rule, or a plain value. */
export function state(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value !== "object") return plain(value);
  const fields = Object.entries(value).filter(([, one]) => one !== null);
  if (!fields.length) return "none";
  if (fields.every(([name]) => /^[0-9]+$/.test(name))) return fields.map(([name, share]) => `v${name} ${plain(share)} %`).join(", ");
  if (fields.length === 2 && "version" in value && "percent" in value) return `v${value.version} ${plain(value.percent)} %`;
  return fields.map(([name, one]) => `${name.replaceAll("_", " ")} ${plain(one)}`).join(", ");
}

const change = ({ detail }) => `${state(detail?.before)} → ${state(detail?.after)}`;

/** Write the aliases that a version had, if there were any. */
function aliases({ detail }) {
  return Array.isArray(detail?.aliases) && detail.aliases.length ? `, with ${detail.aliases.join(", ")}` : "";
}

/** Write that a deletion is for good, if what it deleted cannot come back. */
const forGood = ({ detail }) => (detail?.restorable ? "" : " for good");

// Reasons that no rule gives. Any other is the limit that a version broke.
const causes = { alias_moved: "the alias moved", version_deleted: "a version of it was deleted" };

/** Write why something ended; nothing for a change that someone asked for. */
function reason({ detail }) {
  if (typeof detail?.reason !== "string" || detail.reason === "asked") return "";
  if (Object.hasOwn(causes, detail.reason)) return ` because ${causes[detail.reason]}`;
  const facts = ["measured", "limit", "requests"].filter((name) => name in detail).map((name) => `${name} ${plain(detail[name])}`);
  return ` because of ${detail.reason.replaceAll("_", " ")}${facts.length ? ` (${facts.join(", ")})` : ""}`;
}

const sentences = {
  published: ({ version }) => `v${version} published`,
  signed: ({ version, detail }) => `v${version} signed by ${detail?.signer ?? "a key without a name"}`,
  alias_set: ({ alias, version, detail }) => (detail?.before ? `${alias}: v${detail.before} → v${version}` : `${alias} → v${version}`),
  rolled_back: ({ version, detail }) => `rolled back to v${version}${detail?.before ? ` from v${detail.before}` : ""}`,
  shared: () => "shared with all tenants",
  unshared: () => "no longer shared",
  activation_requested: ({ version }) => `v${version} awaits approval`,
  version_deleted: (event) => `v${event.version} deleted${forGood(event)}${aliases(event)}`,
  version_restored: (event) => `v${event.version} restored${aliases(event)}`,
  version_purged: ({ version }) => `v${version} removed for good`,
  adapter_deleted: ({ detail }) => `adapter deleted${forGood({ detail })}${Array.isArray(detail?.versions) && detail.versions.length ? `, with ${detail.versions.map(at).join(", ")}` : ""}`,
  split_set: (event) => `split of ${event.alias ?? "live"}: ${change(event)}`,
  split_ended: (event) => `split of ${event.alias ?? "live"} ended: ${change(event)}`,
  shadow_set: (event) => `shadow: ${change(event)}`,
  shadow_ended: (event) => `shadow ended: ${change(event)}`,
  rule_set: (event) => `rollback rule: ${change(event)}`,
  rule_removed: (event) => `rollback rule removed: ${change(event)}`,
};

/** Return a sentence for an event; one of a newer server is named by its words. */
export function sentence(event) {
  const known = Object.hasOwn(sentences, event.what) ? sentences[event.what](event) : null;
  if (known !== null) return known + reason(event);
  const words = [event.what.replaceAll("_", " "), event.alias, event.version === null ? "" : at(event.version)];
  return words.filter(Boolean).join(" ") + reason(event);
}
