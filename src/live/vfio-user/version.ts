/**
 * VERSION: what both sides can do, as JSON that the client wrote and that nothing is taken from
 * before it was checked.
 *
 * Source: vfio-user protocol specification, version 0.0, "VFIO_USER_VERSION"; which texts are
 * refused: libvfio-user, lib/tran.c:tran_parse_version_json.
 */
import { Limit } from "./protocol.ts";

/** What a client can take. */
export interface ClientCapabilities {
  /** Descriptors that it receives with one message. */
  readonly messageDescriptors: number;
  /** Bytes of data that it takes with one access. */
  readonly transferBytes: number;
}

/** What is assumed of a client that says nothing. */
export const CAPABILITIES_DEFAULT: ClientCapabilities = {
  messageDescriptors: 1,
  transferBytes: 2 ** 20,
};

const JSON_BYTES_MAX = 16_384;
const DEPTH_MAX = 8;
/** Most descriptors that a client may claim to take, as libvfio-user has it. */
const CLIENT_DESCRIPTORS_MAX = 1024;

/** What this side answers; short, for QEMU takes no reply longer than its request. */
const ANSWER = JSON.stringify({
  capabilities: {
    max_msg_fds: Limit.MESSAGE_DESCRIPTORS,
    max_data_xfer_size: Limit.TRANSFER_BYTES,
    max_dma_maps: Limit.DMA_REGIONS,
    pgsizes: Limit.PAGE_BYTES,
    write_multiple: false,
  },
});

/** The answer's text with its zero byte. `write_multiple` is false, though it is served: U30. */
export const ANSWER_TEXT = new TextEncoder().encode(`${ANSWER}\0`);

type Fields = Readonly<Record<string, unknown>>;
type Check = (value: unknown) => boolean;

const integer =
  (from: number, to: number, multiple = 1): Check =>
  (value) =>
    typeof value === "number" &&
    Number.isSafeInteger(value) &&
    value >= from &&
    value <= to &&
    value % multiple === 0;
const size = integer(1, Number.MAX_SAFE_INTEGER);

/** Capabilities that are looked at; others may be anything. */
const checks: Readonly<Record<string, Check>> = {
  max_msg_fds: integer(0, CLIENT_DESCRIPTORS_MAX),
  max_data_xfer_size: size,
  max_dma_maps: size,
  pgsizes: integer(Limit.PAGE_BYTES, Number.MAX_SAFE_INTEGER, Limit.PAGE_BYTES),
  write_multiple: (value) => typeof value === "boolean",
  migration: (value) => {
    if (!isObject(value)) return false;
    return fits(value, {
      pgsize: integer(Limit.PAGE_BYTES, Number.MAX_SAFE_INTEGER, Limit.PAGE_BYTES),
      max_bitmap_size: size,
    });
  },
};

/**
 * Reads what a client can do.
 *
 * @param text - the bytes after the two numbers; none at all is allowed
 * @returns null when they are not what the protocol asks for
 */
export function readCapabilities(text: Uint8Array): ClientCapabilities | null {
  if (text.length === 0) return CAPABILITIES_DEFAULT;
  const parsed = text.length > JSON_BYTES_MAX ? null : parseObject(text);
  if (parsed === null) return null;
  const { capabilities = {} } = parsed;
  if (!isObject(capabilities) || !fits(capabilities, checks)) return null;
  const given = capabilities as {
    readonly max_msg_fds?: number;
    readonly max_data_xfer_size?: number;
  };
  return {
    messageDescriptors: given.max_msg_fds ?? CAPABILITIES_DEFAULT.messageDescriptors,
    transferBytes: given.max_data_xfer_size ?? CAPABILITIES_DEFAULT.transferBytes,
  };
}

/** An object, from text that ends in its only zero byte. */
function parseObject(text: Uint8Array): Fields | null {
  if (text.indexOf(0) !== text.length - 1) return null;
  try {
    const json = new TextDecoder("utf-8", { fatal: true }).decode(text.subarray(0, -1));
    const keys = countKeys(json);
    const value: unknown = keys < 0 ? null : JSON.parse(json);
    // A key that comes twice is there once after parsing.
    return isObject(value) && keysOf(value) === keys ? value : null;
  } catch {
    return null;
  }
}

/** Keys in a text, the colons outside of strings; −1 for one that is nested too deep. */
function countKeys(json: string): number {
  let depth = 0;
  let keys = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}:]/gs)) {
    if (token === ":") keys += 1;
    else if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    if (depth > DEPTH_MAX) return -1;
  }
  return keys;
}

function keysOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, each) => sum + keysOf(each), own);
}

function fits(value: Fields, wanted: Readonly<Record<string, Check>>): boolean {
  return Object.keys(wanted).every((key) => !Object.hasOwn(value, key) || wanted[key]!(value[key]));
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
