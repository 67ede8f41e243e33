/** Built-in topologies as rows of the registry of descriptions. */
import { EMPTY_MACHINE } from "../../topology/machine.ts";
import { type Field, fieldBytes } from "../../wire/layout.ts";
import type { DescriptionFamily, DescriptionKind } from "../table-description.ts";
import { buildBuiltin } from "./build.ts";
import { type Dialect, dialects } from "./formats.ts";
import { accessTo, readBuiltin } from "./reader.ts";

/** The stricter first: an array can look like a linked list. */
const order: readonly Dialect[] = ["v2", "v3", "v1"];

/** The dialect in which bytes make a list without any mistake; null when in none. */
export function dialectOf(bytes: Uint8Array): Dialect | null {
  if (bytes.length < 52 || bytes.length > 0x20_0000) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // A granule of 4 KiB or more, and a range of addresses that is one.
  if (view.getUint32(0, true) % 4096 !== 0) return null;
  if (view.getBigUint64(8, true) > view.getBigUint64(16, true)) return null;
  const isClean = (dialect: Dialect) => {
    const { items, findings } = readBuiltin(accessTo(bytes), dialect);
    return items.length > 0 && findings.length === 0;
  };
  return order.find(isClean) ?? null;
}

/** Config spaces; they have no magic number and are told by a list without mistakes. */
export const builtinFamily: DescriptionFamily = {
  name: "builtin",
  brief: "a virtio-iommu config space with built-in topology",
  recognises: (bytes) => dialectOf(bytes) !== null,
  read(files) {
    let machine = EMPTY_MACHINE;
    const documents = files.map(({ file, bytes }) => {
      const dialect = dialectOf(bytes) ?? "v1";
      const reading = readBuiltin(accessTo(bytes), dialect);
      machine = reading.machine;
      const items = reading.items.map(({ at, bytes: length, kind, values }) => ({
        at,
        length,
        name: kind,
        title: "structure",
        items: [],
        fields: Object.entries(dialects[dialect][kind === "mmio" ? "mmio" : "pci"].fields).map(
          ([name, field]: [string, Field]) => {
            const text = `0x${values[name]!.toString(16)}`;
            const place = at + field.at;
            return {
              at: place,
              length: fieldBytes(field),
              name,
              value: text,
              text,
              doc: field.doc,
            };
          },
        ),
      }));
      const { title } = dialects[dialect];
      const tree = () => ({ at: 0, length: bytes.length, name: dialect, title, fields: [], items });
      return { file, kind: "builtin", bytes: bytes.length, tree, findings: reading.findings };
    });
    return { documents, machine };
  },
};

/** Config spaces that can be written: proposals, all of them. */
export const builtinKinds: readonly DescriptionKind[] = (
  [
    ["builtin", "v1"],
    ["builtin-v2", "v2"],
    ["builtin-v3", "v3"],
  ] as const
).map(([name, dialect]) => ({
  name,
  brief: `proposal: topology in the config space, ${dialects[dialect].title}`,
  isText: false,
  build: (machine) => buildBuiltin(machine, dialect),
}));
