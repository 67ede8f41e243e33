/** Devicetrees as rows of the registry of descriptions. */
import { EMPTY_MACHINE } from "../../topology/machine.ts";
import type { DescriptionFamily, DescriptionKind } from "../table-description.ts";
import type { DumpNode } from "../table-dump.ts";
import { decodeBlob, isBlob } from "./blob.ts";
import { flatten } from "./blob-write.ts";
import { buildDevicetree } from "./build.ts";
import { readDevicetree } from "./reader.ts";
import { valueText, writeSource } from "./source.ts";
import type { DtNode } from "./tree.ts";

/** Flattened devicetrees; of several the last one's machine counts. */
export const devicetreeFamily: DescriptionFamily = {
  name: "devicetree",
  brief: "a devicetree blob",
  recognises: isBlob,
  read(files) {
    let machine = EMPTY_MACHINE;
    const documents = files.map(({ file, bytes }) => {
      const blob = decodeBlob(bytes, file);
      const reading = readDevicetree(blob.root);
      machine = reading.machine;
      return {
        file,
        kind: "devicetree",
        bytes: bytes.length,
        tree: () => dumpNode(blob.root, "/"),
        findings: reading.findings,
      };
    });
    return { documents, machine };
  },
};

function dumpNode(node: DtNode, name: string): DumpNode {
  return {
    at: node.at,
    length: node.endAt + 4 - node.at,
    name,
    title: "node",
    fields: node.properties.map(({ at, name: property, value }) => {
      const text = valueText(property, value);
      return { at, length: 12 + value.length, name: property, value: text, text, doc: "property" };
    }),
    items: node.children.map((child) => dumpNode(child, child.name)),
  };
}

/** Devicetrees that can be written. */
export const devicetreeKinds: readonly DescriptionKind[] = [
  {
    name: "dtb",
    brief: "devicetree blob, the topology's part",
    isText: false,
    build: (machine) => flatten(buildDevicetree(machine)),
  },
  {
    name: "dts",
    brief: "devicetree source, the topology's part",
    isText: true,
    build: (machine) => new TextEncoder().encode(writeSource(buildDevicetree(machine))),
  },
];
