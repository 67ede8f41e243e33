/**
 * The devicetree of a host: as the kernel shows it, a directory for each node and a file for each
 * property; else the blob that it was started with.
 *
 * The directories are the tree that the kernel works with, overlays and all, and anybody may read
 * them; the blob is root's. Of either only what tells of topology is looked at, so that a capture
 * holds no serial number and no network address. Source: Linux drivers/of/kobj.c, drivers/of/fdt.c:
 * of_fdt_raw_init; Documentation/ABI/testing/sysfs-firmware-ofw.
 */
import { StackError } from "../errors.ts";
import { BLOB_BYTES_MAX, DEPTH_MAX, decodeBlob, ITEMS_MAX } from "../firmware/devicetree/blob.ts";
import { flatten } from "../firmware/devicetree/blob-write.ts";
import { topologyPart, topologyProperties } from "../firmware/devicetree/topology-properties.ts";
import type { DtNode, DtProperty } from "../firmware/devicetree/tree.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine } from "../topology/machine.ts";
import { follow, type HostTree } from "./tree.ts";

export const BLOB = "/sys/firmware/fdt";
const BASE = "/sys/firmware/devicetree/base";
/** What is a link to the other; of a captured tree it may be all that there is. */
const PROC = "/proc/device-tree";
const VALUE_BYTES_MAX = 1 << 20;

/** Whether there is one, in whatever form. */
export function hasDevicetree(tree: HostTree): boolean {
  return baseOf(tree) !== null || tree.bytes(BLOB, 4, () => new Uint8Array(0)) !== null;
}

function baseOf(tree: HostTree): string | null {
  return [BASE, PROC].find((path) => (tree.list(path) ?? []).length > 0) ?? null;
}

/** Its topology. @throws StackError when a blob is all that there is, and it is damaged */
export function hostDevicetree(tree: HostTree): DtNode | null {
  const base = baseOf(tree);
  if (base !== null) return new DirectoryReader(tree).read(base);
  const blob = tree.bytes(BLOB, BLOB_BYTES_MAX + 1, cleanBlob);
  return blob === null ? null : decodeBlob(blob, BLOB).root;
}

/** A blob of the topology alone; one that cannot be read stays as long as is needed to say so. */
export function cleanBlob(bytes: Uint8Array): Uint8Array {
  try {
    const { root, header } = decodeBlob(bytes, BLOB);
    return flatten({ root: topologyPart(root), reservations: [], bootCpu: header.bootCpu });
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    return bytes.slice(0, 40);
  }
}

/** A node whose directory was found, and whose children are still to come. */
interface OpenNode {
  readonly path: string;
  readonly name: string;
  readonly depth: number;
  readonly properties: DtProperty[];
  readonly children: OpenNode[];
}

class DirectoryReader {
  readonly #tree: HostTree;
  #items = 0;

  constructor(tree: HostTree) {
    this.#tree = tree;
  }

  read(base: string): DtNode {
    const root = this.#open(base, "", 0);
    const found = [root];
    for (let at = 0; at < found.length; at += 1) {
      this.#fill(found[at]!);
      found.push(...found[at]!.children);
    }
    return closed(root);
  }

  #open(path: string, name: string, depth: number): OpenNode {
    return { path, name, depth, properties: [], children: [] };
  }

  /** The kernel's tree has no links; one would lead in a circle. */
  #isNode(path: string): boolean {
    return this.#tree.link(path) === null && this.#tree.list(path) !== null;
  }

  #fill(node: OpenNode): void {
    const names = this.#tree.list(node.path) ?? [];
    for (const name of names) {
      if (this.#items >= ITEMS_MAX) return;
      this.#items += 1;
      const path = `${node.path}/${name}`;
      if (topologyProperties.has(name)) {
        const value = this.#tree.bytes(path, VALUE_BYTES_MAX);
        if (value !== null) node.properties.push({ name, value, at: -1, nameAt: -1 });
      } else if (node.depth + 1 < DEPTH_MAX && this.#isNode(path)) {
        node.children.push(this.#open(path, name, node.depth + 1));
      }
    }
    node.children.sort(byUnitAddress);
  }
}

/** As nodes stand in a tree as a rule: those of a kind together, by address. */
function byUnitAddress(a: OpenNode, b: OpenNode): number {
  const [stemA = "", unitA = ""] = a.name.split("@");
  const [stemB = "", unitB = ""] = b.name.split("@");
  if (stemA !== stemB) return stemA < stemB ? -1 : 1;
  if (unitA.length !== unitB.length) return unitA.length - unitB.length;
  return unitA < unitB ? -1 : Number(unitA > unitB);
}

function closed({ name, properties, children }: OpenNode): DtNode {
  return { name, properties, children: children.map(closed), at: -1, endAt: -1 };
}

/**
 * Segments of host bridges by the paths of their nodes. A tree need not name them; then the kernel
 * numbers them in the order in which their drivers bind, which only its devices tell.
 */
export function segmentsOfBridges(
  tree: HostTree,
  { hostBridges, functions }: Machine,
): ReadonlyMap<string, number> {
  const found = new Map<string, number>();
  for (const { segment, firstBus } of hostBridges) {
    const one = functions.find((f) => f.segment === segment && f.bus === firstBus && f.bridge < 0);
    if (one === undefined) continue;
    const directory = follow(tree, `/sys/bus/pci/devices/${pciName(one)}`);
    const bridge = directory.replace(/\/pci[0-9a-f]{4,8}:[0-9a-f]{2}\/.*$/, "");
    const node = tree.link(`${bridge}/of_node`);
    if (node?.startsWith(`${BASE}/`)) found.set(node.slice(BASE.length), segment);
  }
  return found;
}
