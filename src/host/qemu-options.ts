/**
 * Options of QEMU in both of their forms, as one flat list of keys: `driver=nvme,serial=1` and
 * `{"driver":"nvme","socket":{"path":"x"}}`, whose nested keys are joined by dots.
 *
 * Source: QEMU util/keyval.c and util/qemu-option.c (a doubled comma is one comma, a key alone is
 * switched on, `no` in front switches it off), qapi (JSON form of -device, -object, -netdev …).
 */

/** Keys of one argument. */
const KEYS_MAX = 4096;
/** How deep JSON may nest. */
const DEPTH_MAX = 16;

/** One argument of a command line, taken apart. */
export interface QemuOption {
  /** Without dashes: `device`. */
  readonly name: string;
  readonly values: ReadonlyMap<string, string>;
  /** How messages name it: `-device nvme,drive=d`. */
  readonly text: string;
  /** Whether it was JSON; QEMU makes devices of that form after all others. */
  readonly isJson: boolean;
}

/** What could not be read of an argument. */
export class OptionProblem extends Error {}

/**
 * Takes the value of an argument apart.
 *
 * @param implied - key of a first part that has none
 * @throws OptionProblem
 */
export function parseOption(name: string, value: string, implied: string | null): QemuOption {
  const text = `-${name} ${value}`;
  if (/^\s*\{/.test(value)) return { name, values: fromJson(value), text, isJson: true };
  const values = new Map<string, string>();
  for (const [index, part] of splitAtCommas(value).entries()) {
    if (index >= KEYS_MAX) throw new OptionProblem(`it has more than ${KEYS_MAX} keys`);
    const equals = part.indexOf("=");
    if (equals === 0) throw new OptionProblem(`"${part.slice(0, 40)}" has no key`);
    if (equals > 0) put(values, part.slice(0, equals), part.slice(equals + 1), name);
    else if (index === 0 && implied !== null) put(values, implied, part, name);
    else if (part !== "") put(values, part, "on", name);
  }
  return { name, values, text, isJson: false };
}

/** The same key again: the last one holds, but for lists that are spelled that way. */
function put(values: Map<string, string>, key: string, value: string, option: string): void {
  const before = values.get(key);
  const isList = key === "host-nodes" || (option === "numa" && key === "cpus");
  values.set(key, isList && before !== undefined ? `${before},${value}` : value);
}

function splitAtCommas(text: string): string[] {
  const parts: string[] = [];
  let part = "";
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] !== ",") part += text[at];
    else if (text[at + 1] === ",") {
      part += ",";
      at += 1;
    } else {
      parts.push(part);
      part = "";
    }
  }
  parts.push(part);
  return parts;
}

function fromJson(text: string): Map<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new OptionProblem(`it is no JSON: ${(cause as Error).message.slice(0, 120)}`);
  }
  const values = new Map<string, string>();
  flatten(value, "", values, 0);
  return values;
}

function flatten(value: unknown, key: string, into: Map<string, string>, depth: number): void {
  if (depth > DEPTH_MAX) throw new OptionProblem(`it nests deeper than ${DEPTH_MAX}`);
  if (into.size >= KEYS_MAX) throw new OptionProblem(`it has more than ${KEYS_MAX} keys`);
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) {
    into.set(key, value.join(","));
  } else if (typeof value === "object" && value !== null) {
    for (const [name, inner] of Object.entries(value)) {
      flatten(inner, key === "" ? name : `${key}.${name}`, into, depth + 1);
    }
  } else if (typeof value === "boolean") into.set(key, value ? "on" : "off");
  else into.set(key, String(value));
}

/** A switch: what the key says, or what it is by itself. Words that are no switch count as unset. */
export function isOn(values: ReadonlyMap<string, string>, key: string, byItself: boolean): boolean {
  const value = values.get(key) ?? values.get(key.replaceAll("_", "-"));
  if (value === undefined) return values.get(`no${key}`) === "on" ? false : byItself;
  if (/^(on|yes|true|y)$/.test(value)) return true;
  return /^(off|no|false|n)$/.test(value) ? false : byItself;
}

/** A whole number, decimal or hexadecimal; null when it is none. */
export function wholeNumber(text: string | undefined): number | null {
  if (text === undefined || !/^(0x[0-9a-f]{1,12}|\d{1,15})$/i.test(text)) return null;
  return Number(text);
}

const unitShift = new Map([
  ["b", 0n],
  ["k", 10n],
  ["m", 20n],
  ["g", 30n],
  ["t", 40n],
  ["p", 50n],
]);

/**
 * A size in bytes as QEMU reads it: powers of 1024, a fraction is allowed.
 *
 * @param unit - what a bare number counts: `-m` counts MiB, a backend bytes
 */
export function sizeOf(text: string | undefined, unit: "b" | "m"): bigint | null {
  const match = /^(0x[0-9a-f]{1,16}|\d{1,18})(\.\d{1,6})?([bkmgtp])?$/i.exec(text ?? "");
  if (match === null) return null;
  const shift = unitShift.get((match[3] ?? unit).toLowerCase())!;
  const whole = BigInt(match[1]!) << shift;
  if (match[2] === undefined) return whole;
  const digits = match[2].slice(1);
  return whole + (BigInt(digits) << shift) / 10n ** BigInt(digits.length);
}
