/**
 * The guest's side of the built-in topology: what is read out of a config space before any driver
 * is there.
 *
 * The RFC's guest did it in an early PCI fixup, through the window in the virtio capability, with
 * accesses of two bytes; {@link ConfigAccess} is that window. Its two mistakes can be asked for:
 * they decide what a device may offer it.
 */
import { EMPTY_MACHINE, type Machine, type RidRange } from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import type { Field, Fields, Layout } from "../../wire/layout.ts";
import { Findings, type TableFinding } from "../table-finding.ts";
import {
  type Dialect,
  dialects,
  HeaderV1,
  HeaderV2,
  HeaderV3,
  STRUCTURES_MAX,
  TOPOLOGY_AT,
  TOPOLOGY_FEATURE,
} from "./formats.ts";

/** Config space as a guest reads it: `bytes` is 1, 2, 4 or 8. */
export interface ConfigAccess {
  /** Bytes of the config space. */
  readonly length: number;
  read(at: number, bytes: number): bigint;
}

/** Config space out of bytes. */
export function accessTo(config: Uint8Array): ConfigAccess {
  return {
    length: config.length,
    read(at, bytes) {
      let value = 0n;
      for (let index = bytes - 1; index >= 0; index -= 1) {
        value = value * 256n + BigInt(config[at + index] ?? 0);
      }
      return value;
    },
  };
}

/** Which reader it is. */
export type Reader =
  /** As the proposal means it. */
  | "proposal"
  /** The RFC's driver: two bytes of every field (F32). */
  | "rfc";

/** One structure. */
export interface BuiltinItem {
  readonly at: number;
  readonly bytes: number;
  readonly kind: "pci-range" | "mmio";
  readonly values: Readonly<Record<string, bigint>>;
}

/** What was read. */
export interface BuiltinReading {
  readonly items: readonly BuiltinItem[];
  /** With one IOMMU of kind `other`: the description does not say where it sits. */
  readonly machine: Machine;
  readonly findings: readonly TableFinding[];
}

/** Whether a guest goes and reads it. The RFC's took the bit's number for its mask. */
export function offersTopology(features: bigint, reader: Reader): boolean {
  if (reader === "rfc") return (features & BigInt(TOPOLOGY_FEATURE)) !== 0n;
  return ((features >> BigInt(TOPOLOGY_FEATURE)) & 1n) === 1n;
}

/** Reads a list. Never throws; a list that goes in circles ends. */
export function readBuiltin(
  access: ConfigAccess,
  dialect: Dialect,
  reader: Reader = "proposal",
): BuiltinReading {
  const findings = new Findings("builtin");
  const items: BuiltinItem[] = [];
  for (const item of new ListReader(access, dialect, reader, findings).items()) items.push(item);
  return { items, machine: machineOf(items), findings: findings.list };
}

class ListReader {
  readonly #access: ConfigAccess;
  readonly #dialect: Dialect;
  readonly #reader: Reader;
  readonly #findings: Findings;

  constructor(access: ConfigAccess, dialect: Dialect, reader: Reader, findings: Findings) {
    this.#access = access;
    this.#dialect = dialect;
    this.#reader = reader;
    this.#findings = findings;
  }

  *items(): Generator<BuiltinItem> {
    const { at: start, count, stride } = this.#list();
    let at = start;
    for (let index = 0; index < Math.min(count, STRUCTURES_MAX); index += 1) {
      if (this.#dialect === "v1" && at === 0) return;
      const item = this.#item(at);
      if (item === null) return;
      if (item !== "unknown") yield item;
      const bytes = stride > 0 ? stride : this.#length(at);
      if (bytes === null) return;
      at = this.#dialect === "v1" ? this.#number(at + 2, 2) : at + bytes;
      if (index + 1 === STRUCTURES_MAX) {
        this.#add("endless", "error", at, `The list has more than ${STRUCTURES_MAX} structures`);
      }
    }
  }

  /** Where the list is. */
  #list(): { at: number; count: number; stride: number } {
    const word = (name: string, layout: Layout<Fields>) => {
      const field = layout.fields[name]!;
      return Number(this.#read(TOPOLOGY_AT + field.at, field));
    };
    if (this.#dialect === "v1") {
      const layout = HeaderV1 as unknown as Layout<Fields>;
      return { at: word("offset", layout), count: STRUCTURES_MAX, stride: 16 };
    }
    const isArray = this.#dialect === "v2";
    const layout = (isArray ? HeaderV2 : HeaderV3) as unknown as Layout<Fields>;
    const stride = isArray ? word("stride", layout) : 0;
    if (isArray && stride < 12) {
      this.#add("stride", "error", TOPOLOGY_AT + 8, `Structures of ${stride} bytes are too short`);
      return { at: 0, count: 0, stride: 0 };
    }
    return { at: word("offset", layout), count: word("count", layout), stride };
  }

  /** Length of a structure of v3; null when it is none. */
  #length(at: number): number | null {
    const bytes = this.#number(at + 2, 2);
    if (bytes >= 4) return bytes;
    this.#add("length", "error", at + 2, `A structure of ${bytes} bytes`);
    return null;
  }

  /** A structure; null when the list ends here by mistake. */
  #item(at: number): BuiltinItem | "unknown" | null {
    const format = dialects[this.#dialect];
    if (at < format.listAt || at + 4 > this.#access.length) {
      this.#add("offset", "error", at, `A structure at ${hex(at)} of ${this.#access.length} bytes`);
      return null;
    }
    const type = this.#number(at, this.#dialect === "v3" ? 1 : 2);
    if (type !== format.pciType && type !== format.mmioType) {
      this.#add("type", "warning", at, `Nobody knows structures of type ${type}`);
      return "unknown";
    }
    const kind = type === format.pciType ? "pci-range" : "mmio";
    const layout: Layout<Fields> = type === format.pciType ? format.pci : format.mmio;
    if (at + layout.bytes > this.#access.length) {
      this.#add("offset", "error", at, `A structure of ${layout.bytes} bytes passes the end`);
      return null;
    }
    const values: Record<string, bigint> = {};
    for (const [name, field] of Object.entries(layout.fields)) {
      values[name] = this.#read(at + field.at, field);
    }
    if (kind === "pci-range" && values.last! < values.first!) {
      this.#add("range-empty", "error", at, "The range ends before it starts");
      return "unknown";
    }
    return { at, bytes: layout.bytes, kind, values };
  }

  #read(at: number, { kind }: Field): bigint {
    const bytes = kind === "u8" ? 1 : kind === "u16" ? 2 : kind === "u32" ? 4 : 8;
    return this.#access.read(at, this.#reader === "rfc" ? Math.min(bytes, 2) : bytes);
  }

  #number(at: number, bytes: number): number {
    return Number(this.#access.read(at, bytes));
  }

  #add(what: string, severity: TableFinding["severity"], at: number, message: string): void {
    this.#findings.add({ code: `builtin/${what}`, severity, at, message });
  }
}

function machineOf(items: readonly BuiltinItem[]): Machine {
  const translates: RidRange[] = [];
  const endpoints: { base: bigint; id: number; path: null }[] = [];
  for (const { kind, values } of items) {
    const id = Number(values.endpoint);
    if (kind === "mmio") endpoints.push({ base: values.address!, id, path: null });
    else {
      translates.push({
        segment: Number(values.segment),
        firstRid: Number(values.first),
        lastRid: Number(values.last),
        firstId: id,
        includesBelow: false,
      });
    }
  }
  const name = "built-in topology";
  const common = { node: null, includesRest: false, interruptSources: [] };
  return { ...EMPTY_MACHINE, iommus: [{ kind: "other", name, ...common, translates, endpoints }] };
}
