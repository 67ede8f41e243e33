/** ACPI tables as rows of the registry of descriptions. */
import { StackError } from "../../errors.ts";
import type { DescriptionFamily, DescriptionFile, DescriptionKind } from "../table-description.ts";
import { type DumpNode, dumpItem } from "../table-dump.ts";
import { bytesNamed, isA, type Structure } from "../table-item.ts";
import { type AcpiKind, buildTable } from "./build.ts";
import { type DecodedTable, decodeTable, signatureAt } from "./decode.ts";
import { HEADER_BYTES } from "./header.ts";
import { readTables } from "./machine-parts.ts";
import { DISTANCES, Slit } from "./slit.ts";

/** ACPI tables, one a file. */
export const acpiFamily: DescriptionFamily = {
  name: "acpi",
  brief: "an ACPI table",
  recognises: (bytes) => bytes.length >= 4 && /^[A-Z0-9_]{4}$/.test(signatureAt(bytes, 0)),
  read(files, functions) {
    const tables = files.map(decodeFile);
    const { machine, findings } = readTables(tables, functions);
    const documents = files.map(({ file, bytes }, index) => ({
      file,
      kind: tables[index]!.signature,
      bytes: bytes.length,
      tree: () => dumpTable(tables[index]!.root),
      findings: findings[index]!,
    }));
    return { documents, machine };
  },
};

function decodeFile({ file, bytes }: DescriptionFile): DecodedTable {
  try {
    return decodeTable(bytes);
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    const { code, kind, message, hint } = error;
    const at = { file, offset: Math.min(bytes.length, HEADER_BYTES) };
    const named = { code: code as `acpi/${string}`, kind, message, at, cause: error };
    throw new StackError(hint === undefined ? named : { ...named, hint });
  }
}

/** The tree of a table; a matrix of distances shows a row a line. */
function dumpTable(root: Structure): DumpNode {
  const tree = dumpItem(root);
  const matrix = bytesNamed(root, DISTANCES);
  if (!isA(root, Slit) || matrix === null) return tree;
  const size = Number(root.values.localities);
  if (size * size !== matrix.length) return tree;
  const fields = tree.fields.filter((field) => field.name !== DISTANCES);
  for (let row = 0; row < size; row += 1) {
    const text = matrix.subarray(row * size, (row + 1) * size).join(" ");
    const at = root.at + Slit.layout.bytes + row * size;
    fields.push({ at, length: size, name: `from ${row}`, value: text, text, doc: "to 0 and on" });
  }
  return { ...tree, fields };
}

const briefs: Readonly<Record<AcpiKind, string>> = {
  viot: "ACPI VIOT: virtio-iommu",
  iort: "ACPI IORT: Arm SMMU and ITS",
  dmar: "ACPI DMAR: Intel VT-d",
  ivrs: "ACPI IVRS: AMD-Vi",
  srat: "ACPI SRAT: nodes of CPUs, memory and initiators",
  slit: "ACPI SLIT: distances between nodes",
  mcfg: "ACPI MCFG: PCI configuration space",
};

/** Tables that can be written. */
export const acpiKinds: readonly DescriptionKind[] = (
  Object.entries(briefs) as [AcpiKind, string][]
).map(([name, brief]) => ({
  name,
  brief,
  isText: false,
  build: (machine, ids) => buildTable(name, machine, ids),
}));
