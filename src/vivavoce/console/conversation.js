/**
 * What was said, as the page shows it: the fold of all events of both directions, without a document in sight.
 *
 * Entries stand in the order of the server's items. An item that we create ourselves stands there at once, under the id
 * that we gave it. Invariant: words that were shown stay; what was not heard of them is marked, never taken away.
 */

import { AUDIO_TOKEN_MS, Pace, heardChars } from "./heard.js";
import { Signal } from "./signal.js";

/**
 * @typedef {object} Entry
 * @property {string} id
 * @property {"said" | "call" | "approval" | "note"} kind
 * @property {"user" | "assistant" | "system"} who
 * @property {string} text of a call: its arguments
 * @property {boolean} spoken
 * @property {"live" | "done" | "cut" | "failed"} status
 * @property {number} at when it began, in milliseconds since the epoch
 * @property {string[]} images data URLs
 * @property {string} responseId
 * @property {{ms: number, chars: number} | null} heard where it was cut
 * @property {string} name of a call
 * @property {string} callId
 * @property {string | null} output what a call was answered
 * @property {string} server the MCP server of a call; empty for a function of ours
 * @property {string} problem
 * @property {Map<number, string>} parts
 */

/** @typedef {{entry: Entry, what: "added" | "changed" | "moved" | "removed"}} Change */

/** As many entries are kept; the oldest go first. */
export const ENTRIES_MAX = 1000;

const PARTS = new Set(["text", "transcript"]);

export class Conversation {
  /** @type {Entry[]} */
  entries = [];
  /** @type {Signal<Change>} */
  changes = new Signal();
  /** @type {Map<string, Entry>} */
  #byId = new Map();
  /** @type {Map<string, {ms: number, isAll: boolean}>} how long the speech of a response is, and whether it is all */
  #speechMs = new Map();
  /** @type {Set<string>} items that we create again, whose words we know better than the server */
  #restored = new Set();
  #pace = new Pace();
  #notes = 0;

  /**
   * @param {"client" | "server"} dir
   * @param {any} event
   * @param {number} at milliseconds since the epoch
   */
  apply(dir, event, at) {
    if (dir === "client") {
      if (event.type === "conversation.item.create") this.#item(event.item, event.previous_item_id, at);
      return;
    }
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.#heardUser(event.item_id, at);
        break;
      case "input_audio_buffer.committed":
        this.#place(this.#heardUser(event.item_id, at), event.previous_item_id);
        break;
      case "conversation.item.added":
      case "conversation.item.created":
      case "conversation.item.done":
        this.#item(event.item, event.previous_item_id, at);
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.#write(this.#heardUser(event.item_id, at), event.content_index ?? 0, event.delta ?? "", true);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.#write(this.#heardUser(event.item_id, at), event.content_index, event.transcript.trim());
        this.#end(event.item_id, "done");
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.#end(event.item_id, "failed", event.error?.message ?? "It could not be transcribed.");
        break;
      case "conversation.item.truncated":
        this.#cut(event.item_id, event.audio_end_ms);
        break;
      case "conversation.item.deleted":
        this.#deleted(event.item_id);
        break;
      case "response.output_item.added":
        this.#item(event.item, undefined, at, event.response_id);
        break;
      case "response.output_item.done":
        this.#item(event.item, undefined, at, event.response_id);
        break;
      case "response.output_text.delta":
      case "response.output_audio_transcript.delta":
        this.#answer(event, event.delta, true);
        break;
      case "response.output_text.done":
        this.#answer(event, event.text);
        break;
      case "response.output_audio_transcript.done":
        this.#answer(event, event.transcript);
        break;
      case "response.function_call_arguments.delta":
      case "response.mcp_call_arguments.delta":
        this.#write(this.#byId.get(event.item_id), 0, event.delta, true);
        break;
      case "response.done":
        this.#responded(event.response, at);
        break;
      default:
    }
  }

  /** Something that no item says. @param {string} text @param {boolean} isProblem @param {number} at */
  note(text, isProblem, at) {
    const entry = blank(`note_${++this.#notes}`, "note", "system", at);
    Object.assign(entry, { text, status: isProblem ? "failed" : "done" });
    this.#add(entry);
  }

  /** An item of ours was refused. @param {string} itemId @param {string} problem */
  refuse(itemId, problem) {
    this.#end(itemId, "failed", problem);
  }

  /** @param {string} id */
  entry(id) {
    return this.#byId.get(id);
  }

  /** The conversation as items for a new session: what was heard, and nothing that was not. @returns {object[]} */
  history() {
    const items = [];
    for (const entry of this.entries) {
      const item = asItem(entry);
      if (item === null) continue;
      this.#restored.add(entry.id);
      items.push(item);
      if (entry.kind === "call" && entry.output !== null) {
        items.push({ type: "function_call_output", call_id: entry.callId, output: entry.output });
      }
    }
    return items;
  }

  /** Nothing more will come for what is still being said: the session is gone. */
  breakOff() {
    for (const entry of this.entries) {
      if (entry.status !== "live") continue;
      if (entry.kind === "said" && !entry.text) this.#remove(entry);
      else if (entry.kind === "call") this.#end(entry.id, "failed", "The connection was lost while it was written.");
      else this.#end(entry.id, "done");
    }
  }

  clear() {
    for (const entry of [...this.entries]) this.#remove(entry);
    this.#restored.clear();
    this.#speechMs.clear();
  }

  // --- items --------------------------------------------------------------------------------------------------------

  /** @param {any} item @param {string | null | undefined} previousId @param {number} at @param {string} [responseId] */
  #item(item, previousId, at, responseId) {
    if (item.type === "function_call_output") {
      const call = this.entries.find((entry) => entry.kind === "call" && entry.callId === item.call_id);
      if (call && call.output === null) this.#set(call, { output: item.output, status: "done" });
      return;
    }
    if (item.type === "mcp_approval_response") {
      const asked = this.#byId.get(item.approval_request_id);
      if (asked) this.#set(asked, { output: item.approve ? "approved" : "denied", status: "done" });
      return;
    }
    const kind = KINDS[/** @type {keyof KINDS} */ (item.type)];
    if (!kind || !item.id) return;
    const known = this.#byId.get(item.id);
    const entry = known ?? this.#add(blank(item.id, kind, item.role ?? "assistant", at));
    this.#place(entry, previousId);
    if (responseId) entry.responseId = responseId;
    if (this.#restored.has(item.id) || entry.status === "cut") return;
    this.#fill(entry, item);
  }

  /** @param {Entry} entry @param {any} item */
  #fill(entry, item) {
    const isOver = item.status === "completed" || item.status === "incomplete";
    if (entry.kind === "said") {
      const content = item.content ?? [];
      content.forEach((/** @type {any} */ part, /** @type {number} */ index) => {
        const words = Object.entries(part).find(([name, value]) => PARTS.has(name) && value)?.[1];
        if (words) entry.parts.set(index, String(words));
      });
      entry.images = content.flatMap((/** @type {any} */ part) => part.image_url ?? []);
      entry.spoken ||= content.some((/** @type {any} */ part) => /audio/.test(part.type));
      const awaitsWords = entry.who === "user" && entry.spoken && entry.parts.size === 0;
      this.#set(entry, { text: joined(entry), status: isOver && !awaitsWords ? "done" : entry.status });
      return;
    }
    entry.name = item.name ?? "";
    entry.callId = item.call_id ?? "";
    entry.server = item.server_label ?? "";
    const ended = entry.server ? item.output != null || item.error != null : isOver;
    this.#set(entry, {
      text: item.arguments || entry.text,
      output: item.output ?? entry.output,
      problem: item.error?.message ?? entry.problem,
      status: item.error ? "failed" : ended && entry.status === "live" ? "done" : entry.status,
    });
  }

  /** The entry of the user's speech. @param {string} id @param {number} at */
  #heardUser(id, at) {
    const entry = this.#byId.get(id) ?? this.#add(blank(id, "said", "user", at));
    entry.spoken = true;
    return entry;
  }

  /** @param {any} event @param {string} words @param {boolean} [isPiece] */
  #answer(event, words, isPiece = false) {
    const entry = this.#byId.get(event.item_id);
    if (!entry || entry.status === "cut") return;
    entry.spoken ||= event.type.includes("audio");
    entry.responseId = event.response_id;
    this.#write(entry, event.content_index, words, isPiece);
  }

  /** @param {Entry | undefined} entry @param {number} index @param {string} words @param {boolean} [isPiece] */
  #write(entry, index, words, isPiece = false) {
    if (!entry || this.#restored.has(entry.id)) return;
    entry.parts.set(index, isPiece ? (entry.parts.get(index) ?? "") + words : words);
    this.#set(entry, { text: joined(entry) });
  }

  /** @param {string} id @param {Entry["status"]} status @param {string} [problem] */
  #end(id, status, problem = "") {
    const entry = this.#byId.get(id);
    if (entry) this.#set(entry, { status: entry.status === "cut" ? "cut" : status, problem });
  }

  /** @param {any} response @param {number} at */
  #responded(response, at) {
    const own = this.entries.filter((entry) => entry.responseId === response.id);
    const spoken = own.filter((entry) => entry.kind === "said" && entry.spoken);
    const chars = spoken.reduce((sum, entry) => sum + entry.text.length, 0);
    const ms = (response.usage?.output_token_details?.audio_tokens ?? 0) * AUDIO_TOKEN_MS;
    if (ms) this.#speechMs.set(response.id, { ms, isAll: response.status === "completed" });
    if (response.status === "completed") this.#pace.learn(chars, ms);
    for (const entry of own) {
      if (entry.status === "cut" && entry.heard) this.#cut(entry.id, entry.heard.ms);
      else if (entry.status === "live") this.#end(entry.id, "done");
    }
    const details = response.status_details;
    if (response.status === "failed") {
      this.note(details?.error?.message ?? "The answer has failed.", true, at);
    } else if (response.status === "incomplete") {
      const why = details?.reason === "max_output_tokens" ? "it reached its limit of tokens" : details?.reason;
      this.note(`The answer ends here: ${why ?? "it is incomplete"}.`, false, at);
    }
  }

  /** @param {string} id @param {number} ms */
  #cut(id, ms) {
    const entry = this.#byId.get(id);
    if (!entry) return;
    const siblings = this.entries.filter((other) => other.responseId === entry.responseId && other.spoken);
    const chars = siblings.reduce((sum, other) => sum + other.text.length, 0);
    const whole = this.#speechMs.get(entry.responseId);
    const usualMs = this.#pace.ms(entry.text.length);
    const spokenMs = whole && chars ? (whole.ms * entry.text.length) / chars : 0;
    // Words are written ahead of their sound: of an answer that was broken off, not all of them had any yet.
    const totalMs = whole?.isAll ? spokenMs : Math.max(spokenMs, usualMs);
    this.#set(entry, { status: "cut", heard: { ms, chars: heardChars(entry.text, ms, totalMs) } });
  }

  /** @param {string} id */
  #deleted(id) {
    const entry = this.#byId.get(id);
    if (!entry) return;
    // What was shown and never heard stays to be seen; what the user never said was no turn.
    if (entry.who === "assistant" && entry.text) this.#set(entry, { status: "cut", heard: { ms: 0, chars: 0 } });
    else this.#remove(entry);
  }

  // --- the list -----------------------------------------------------------------------------------------------------

  /** @param {Entry} entry */
  #add(entry) {
    this.entries.push(entry);
    this.#byId.set(entry.id, entry);
    this.changes.emit({ entry, what: "added" });
    if (this.entries.length > ENTRIES_MAX) this.#remove(this.entries[0]);
    return entry;
  }

  /** @param {Entry} entry @param {Partial<Entry>} fields */
  #set(entry, fields) {
    Object.assign(entry, fields);
    this.changes.emit({ entry, what: "changed" });
  }

  /** @param {Entry} entry */
  #remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.#byId.delete(entry.id);
    this.changes.emit({ entry, what: "removed" });
  }

  /** Behind the item that the server says; notes stay where they are. @param {Entry} entry @param {unknown} previousId */
  #place(entry, previousId) {
    const previous = typeof previousId === "string" ? this.#byId.get(previousId) : undefined;
    if (!previous) return;
    const index = this.entries.indexOf(entry);
    const behind = this.entries.indexOf(previous);
    const between = this.entries.slice(Math.min(index, behind) + 1, Math.max(index, behind));
    if (index > behind && between.every((other) => other.kind === "note")) return;
    this.entries.splice(index, 1);
    this.entries.splice(this.entries.indexOf(previous) + 1, 0, entry);
    this.changes.emit({ entry, what: "moved" });
  }
}

/** @type {Record<string, Entry["kind"]>} */
const KINDS = { message: "said", function_call: "call", mcp_call: "call", mcp_approval_request: "approval" };

/** @param {string} id @param {Entry["kind"]} kind @param {Entry["who"]} who @param {number} at @returns {Entry} */
function blank(id, kind, who, at) {
  const empty = { text: "", name: "", callId: "", responseId: "", server: "", problem: "" };
  return { id, kind, who, at, spoken: false, status: "live", images: [], heard: null, output: null, parts: new Map(), ...empty };
}

/** @param {Entry} entry */
function joined(entry) {
  return [...entry.parts].sort(([one], [other]) => one - other).map(([, words]) => words).join(" ");
}

/** @param {Entry} entry @returns {object | null} */
function asItem(entry) {
  if (entry.status === "failed") return null;
  if (entry.kind === "call" && !entry.server && entry.callId && entry.status !== "live") {
    return { type: "function_call", id: entry.id, call_id: entry.callId, name: entry.name, arguments: entry.text };
  }
  if (entry.kind !== "said") return null;
  const text = entry.heard ? entry.text.slice(0, entry.heard.chars) : entry.text;
  const message = { type: "message", id: entry.id, role: entry.who };
  if (entry.who === "assistant") return text ? { ...message, content: [{ type: "output_text", text }] } : null;
  const images = entry.images.map((image_url) => ({ type: "input_image", image_url }));
  const content = [...(text ? [{ type: "input_text", text }] : []), ...images];
  return content.length ? { ...message, content } : null;
}
