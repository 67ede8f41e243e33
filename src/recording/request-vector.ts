/**
 * JSON-lines vectors of virtio-iommu requests: a first line that describes the device, then one
 * line for each request with what the recorded device answered.
 *
 *     {"qemu": "11.1.3", "device_features": "0x…", "acked": "0x…", "config": HEX, "endpoints": […]}
 *     {"i": 0, "req": HEX, "tail": 4, "used_len": 4, "status": 6, "buf": null}
 *
 * `req` is the readable part, `tail` the size of the writable part, `used_len` what the device
 * reported as written, `status` the first byte of the tail (null when none was written), `buf` the
 * writable part where it is longer than a tail.
 */
import { StackError } from "../errors.ts";

/** The device that a file of vectors was recorded from. */
export interface VectorDevice {
  readonly line: number;
  /** Who answered: `qemu`, or `unknown`. */
  readonly peer: string;
  readonly peerVersion: string;
  readonly offered: bigint;
  readonly acknowledged: bigint;
  /** Config space, as it was at the start. */
  readonly config: Uint8Array;
  readonly endpoints: readonly number[];
  /** The IOMMU's own function, null when the line does not name it. */
  readonly own: number | null;
}

/** One request: a record that is written anew for each. The arrays' ends lie at the lengths. */
export class RequestRow {
  line = 0;
  /** Number of the request in the recording. */
  index = 0;
  request: Uint8Array<ArrayBuffer> = new Uint8Array(256);
  requestBytes = 0;
  /** Size of the writable part. */
  writableBytes = 0;
  usedBytes = 0;
  /** −1 when the device wrote none. */
  status = -1;
  /** The writable part after the request, −1 bytes when it was not recorded. */
  reply: Uint8Array<ArrayBuffer> = new Uint8Array(1024);
  replyBytes = -1;
}

const HEX_PAIRS = /^([0-9a-f]{2})*$/i;

/** Reads the first line; null when it is not one. */
export function parseVectorDevice(text: string, line: number): VectorDevice | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const fields = value as Readonly<Record<string, unknown>>;
  const { config } = fields;
  if (typeof config !== "string" || config.length < 72 || config.length > 8192) return null;
  if (!HEX_PAIRS.test(config)) return null;
  const offered = bigField(fields.device_features);
  const acknowledged = bigField(fields.acked);
  if (offered === null || acknowledged === null) return null;
  const endpoints = Array.isArray(fields.endpoints) ? fields.endpoints : [];
  const numbers = endpoints.map((item) => Number(bigField(item) ?? -1n));
  if (numbers.some((number) => number < 0 || number > 0xffff_ffff) || numbers.length > 65_536) {
    return null;
  }
  const bytes = new Uint8Array(config.length / 2);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = Number.parseInt(config.slice(at * 2, at * 2 + 2), 16);
  }
  const version = fields.qemu;
  return {
    line,
    peer: typeof version === "string" ? "qemu" : "unknown",
    peerVersion: typeof version === "string" ? version.slice(0, 64) : "",
    offered,
    acknowledged,
    config: bytes,
    endpoints: numbers,
    own: ownEndpoint(fields.note),
  };
}

/** The endpoint ID of the IOMMU, out of a note such as `…; virtio-iommu at 00:04.0`. */
function ownEndpoint(note: unknown): number | null {
  if (typeof note !== "string") return null;
  const at = /virtio-iommu at ([0-9a-f]{2}):([01][0-9a-f])\.([0-7])/.exec(note);
  if (at === null) return null;
  const [bus = "", device = "", fn = ""] = at.slice(1);
  return Number.parseInt(bus, 16) * 256 + Number.parseInt(device, 16) * 8 + Number(fn);
}

function bigField(value: unknown): bigint | null {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== "string" || !/^(0x[0-9a-f]{1,16}|[0-9]{1,18})$/i.test(value)) return null;
  return BigInt(value);
}

/** What a file of vectors without its first line is answered with. */
export function noDeviceError(file: string, line: number): StackError {
  return new StackError({
    code: "recording/no-device-line",
    kind: "input",
    message: "A request stands before the line that describes the device",
    at: { file, line },
    hint: 'the first line needs "device_features", "acked", "config" and "endpoints"',
  });
}
