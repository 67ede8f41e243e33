/** Helpers for tests of devicetrees: vectors, and trees out of a few words. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import type { Machine } from "../../topology/machine.ts";
import { EMPTY_MACHINE, type HostBridge } from "../../topology/machine.ts";
import { flatten } from "./blob-write.ts";
import { type DtNode, type DtProperty, dtNode } from "./tree.ts";

export const vectorNames = ["virt-virtio", "virt-smmuv3"] as const;

/** A blob that QEMU made. */
export function vector(name: (typeof vectorNames)[number]): Uint8Array {
  const file = new URL(`./vectors/${name}.dtb.gz`, import.meta.url);
  return new Uint8Array(gunzipSync(readFileSync(file)));
}

/** A blob of a tree without reservations. */
export function blobOf(root: DtNode): Uint8Array {
  return flatten({ reservations: [], bootCpu: 0, root });
}

/** A copy with big-endian words written at some places. */
export function patched(bytes: Uint8Array, ...patches: [at: number, word: number][]): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  for (const [at, word] of patches) view.setUint32(at, word);
  return copy;
}

/** A copy of a tree in which some nodes are others. */
export function changed(root: DtNode, change: (node: DtNode) => DtNode): DtNode {
  const node = change(root);
  return { ...node, children: node.children.map((child) => changed(child, change)) };
}

/** A copy of a node with properties set, or with `null` removed. */
export function withProperties(
  node: DtNode,
  values: Readonly<Record<string, Uint8Array | null>>,
): DtNode {
  const rest = node.properties.filter(({ name }) => !(name in values));
  const properties: DtProperty[] = [...rest, ...dtNode("", values).properties];
  return { ...node, properties };
}

/** A host bridge with nothing special. */
export function bridgeOf(parts: Partial<HostBridge> = {}): HostBridge {
  return {
    segment: 0,
    firstBus: 0,
    lastBus: 0xff,
    node: null,
    ecamBase: 0x40_1000_0000n,
    windows: [],
    bypassesIommu: false,
    atsSupported: null,
    ...parts,
  };
}

/** A machine of parts. */
export function machineOf(parts: Partial<Machine>): Machine {
  return { ...EMPTY_MACHINE, hostBridges: [bridgeOf()], ...parts };
}
