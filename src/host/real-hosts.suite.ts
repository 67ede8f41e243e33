/** Captures of two real machines, for the tests of this and other rooms. */
import { readFileSync } from "node:fs";
import { ArchiveTree, archiveTree } from "./archive-tree.ts";
import type { TarMember } from "./tar.ts";

/** Names of the captures under `examples/hosts`. */
export const realHosts = ["q35-2node-intel-iommu", "q35-2node-virtio-iommu"] as const;
/** The same of Arm guests that a devicetree describes. */
export const armHosts = ["virt-2node-smmuv3", "virt-2node-virtio-iommu"] as const;

/** Where a capture lies. */
export function capturePath(name: string): string {
  return `examples/hosts/${name}.tar.gz`;
}

/** A captured machine. */
export function realHost(
  name: (typeof realHosts)[number] | (typeof armHosts)[number],
): ArchiveTree {
  return archiveTree(readFileSync(capturePath(name)), name);
}

/** Contents of a made-up tree: text, bytes, or a link to somewhere. */
export type TreeFiles = Readonly<Record<string, string | Uint8Array | { readonly link: string }>>;

/** A tree in memory. */
export function treeOf(files: TreeFiles): ArchiveTree {
  const members = Object.entries(files).map(([path, content]): TarMember => {
    const at = path.slice(1);
    const none = new Uint8Array(0);
    if (typeof content === "string") {
      return { path: at, kind: "file", bytes: Buffer.from(content, "latin1"), target: "" };
    }
    if (content instanceof Uint8Array)
      return { path: at, kind: "file", bytes: content, target: "" };
    return { path: at, kind: "link", bytes: none, target: content.link };
  });
  return new ArchiveTree("made up", members);
}
