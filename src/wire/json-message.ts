/**
 * The progress stream of pull, push, build, load and import: one JSON object a line, CRLF after each, with the fields
 * and the ready-made progress bar that Docker's clients print (Engine API, "JSONMessage").
 */
export interface ProgressDetail {
  readonly current: number;
  readonly total: number;
}

export type JsonMessage =
  | { readonly kind: "status"; readonly status: string; readonly id?: string }
  /** An action on one thing: carries `progressDetail`, empty when nothing is counted. */
  | {
      readonly kind: "progress";
      readonly id: string;
      readonly action: string;
      readonly detail?: ProgressDetail;
    }
  | { readonly kind: "stream"; readonly text: string }
  | { readonly kind: "aux"; readonly aux: unknown; readonly id?: string }
  | { readonly kind: "error"; readonly message: string; readonly code?: number };

/** One line, as Go's encoder writes it. */
export function encodeJsonMessage(message: JsonMessage): string {
  return `${goJson(fieldsOf(message))}\r\n`;
}

/** Go escapes these in JSON, so that it can stand in HTML; scripts compare the text. */
function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function fieldsOf(message: JsonMessage): object {
  switch (message.kind) {
    case "status":
      return { status: message.status, ...(message.id === undefined ? {} : { id: message.id }) };
    case "progress": {
      const { action, detail, id } = message;
      const text = detail === undefined ? "" : progressBar(detail);
      return {
        status: action,
        progressDetail: detail === undefined ? {} : nonZero(detail),
        ...(text === "" ? {} : { progress: text }),
        id,
      };
    }
    case "stream":
      return { stream: message.text };
    case "aux":
      return { ...(message.id === undefined ? {} : { id: message.id }), aux: message.aux };
    case "error": {
      const code = message.code === undefined ? {} : { code: message.code };
      return { errorDetail: { ...code, message: message.message }, error: message.message };
    }
  }
}

/** Go's omitempty. */
function nonZero({ current, total }: ProgressDetail): Partial<ProgressDetail> {
  return { ...(current > 0 ? { current } : {}), ...(total > 0 ? { total } : {}) };
}

/** `[=====>     ]  5.1MB/40MB`, as dockerd draws it for a terminal of 200 columns. */
export function progressBar({ current, total }: ProgressDetail): string {
  if (current <= 0 && total <= 0) return "";
  if (total <= 0) return humanSize(current).padStart(8);
  const filled = Math.min(50, Math.floor(Math.floor((current / total) * 100) / 2));
  const bar = `[${"=".repeat(filled)}>${" ".repeat(50 - filled)}] `;
  const done = humanSize(current).padStart(8);
  return current > total ? bar + done : `${bar}${done}/${humanSize(total)}`;
}

const sizeUnits = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/** Four significant digits in decimal units, as go-units' HumanSize: `1.056MB`, `36.45kB`. */
export function humanSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < sizeUnits.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${Number(value.toPrecision(4))}${sizeUnits[unit]}`;
}
