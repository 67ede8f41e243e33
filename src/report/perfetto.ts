/**
 * Timelines as a Perfetto trace: native TrackEvent packets, a group of tracks for each timeline.
 *
 * Source: Perfetto, protos/perfetto/trace/trace.proto, trace_packet.proto,
 * track_event/track_event.proto, track_event/track_descriptor.proto; ui.perfetto.dev opens it.
 */
import type { Slice } from "../sim/workload/slices.ts";

/** Slices under one name, as a policy's run. */
export interface Timeline {
  readonly name: string;
  readonly slices: readonly Slice[];
}

const PACKET = 1;
const Packet = { timestamp: 8, sequence: 10, event: 11, descriptor: 60 } as const;
const Descriptor = { uuid: 1, name: 2, parent: 5 } as const;
const Event = { type: 9, track: 11, name: 23 } as const;
const SLICE_BEGIN = 1;
const SLICE_END = 2;
const WIRE_VARINT = 0;
const WIRE_BYTES = 2;
const SEQUENCE = 1;
const PS_PER_NS = 1000;

/** Writes a protocol buffer message. */
class Message {
  #bytes = new Uint8Array(64);
  #length = 0;

  /** The message so far. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /** A number field. @param value - whole, 0 … 2^53 − 1 */
  number(field: number, value: number): this {
    this.#varint(field * 8 + WIRE_VARINT);
    this.#varint(value);
    return this;
  }

  /** A field of bytes: text or a message. */
  field(field: number, content: Uint8Array): this {
    this.#varint(field * 8 + WIRE_BYTES);
    this.#varint(content.length);
    this.#reserve(content.length);
    this.#bytes.set(content, this.#length);
    this.#length += content.length;
    return this;
  }

  text(field: number, value: string): this {
    return this.field(field, new TextEncoder().encode(value));
  }

  #varint(value: number): void {
    let left = value;
    this.#reserve(10);
    while (left >= 0x80) {
      this.#bytes[this.#length] = (left % 0x80) + 0x80;
      this.#length += 1;
      left = Math.floor(left / 0x80);
    }
    this.#bytes[this.#length] = left;
    this.#length += 1;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const bytes = new Uint8Array((this.#length + more) * 2);
    bytes.set(this.bytes);
    this.#bytes = bytes;
  }
}

/** Makes a trace. Times are rounded down to nanoseconds, as the format has them. */
export function perfettoTrace(timelines: readonly Timeline[]): Uint8Array {
  const trace = new Message();
  let uuid = 0;
  for (const { name, slices } of timelines) {
    uuid += 1;
    const parent = uuid;
    trace.field(PACKET, track(parent, name, null));
    const tracks = new Map<string, number>();
    for (const one of [...new Set(slices.map((slice) => slice.track))].sort(byNumber)) {
      uuid += 1;
      tracks.set(one, uuid);
      trace.field(PACKET, track(uuid, one, parent));
    }
    for (const slice of slices) {
      const at = tracks.get(slice.track)!;
      trace.field(PACKET, event(at, SLICE_BEGIN, slice.start, slice.name));
      trace.field(PACKET, event(at, SLICE_END, slice.end, null));
    }
  }
  return trace.bytes;
}

/** `CPU 2` before `CPU 10`. */
function byNumber(a: string, b: string): number {
  const number = (text: string) => Number(/\d+$/.exec(text)?.[0] ?? -1);
  return number(a) - number(b) || (a < b ? -1 : 1);
}

function track(uuid: number, name: string, parent: number | null): Uint8Array {
  const descriptor = new Message().number(Descriptor.uuid, uuid).text(Descriptor.name, name);
  if (parent !== null) descriptor.number(Descriptor.parent, parent);
  return packet().field(Packet.descriptor, descriptor.bytes).bytes;
}

function event(uuid: number, type: number, ps: number, name: string | null): Uint8Array {
  const content = new Message().number(Event.type, type).number(Event.track, uuid);
  if (name !== null) content.text(Event.name, name);
  const timestamp = Math.floor(ps / PS_PER_NS);
  return packet().number(Packet.timestamp, timestamp).field(Packet.event, content.bytes).bytes;
}

function packet(): Message {
  return new Message().number(Packet.sequence, SEQUENCE);
}
