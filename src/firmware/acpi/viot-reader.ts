/**
 * What Linux makes of a VIOT: which functions and devices are behind which virtio-iommu, and what it
 * refuses on the way. Source: Linux 7.2 drivers/acpi/viot.c.
 */
import { pciName } from "../../iommu/pci-function.ts";
import type { Iommu, MmioEndpoint, RidRange } from "../../topology/machine.ts";
import { addressOfRid } from "../../topology/pci-address.ts";
import { hex } from "../../units.ts";
import { laterWins, type Span } from "../rid-spans.ts";
import { isA, type Structure, type StructureOf } from "../table-item.ts";
import { type MachineParts, RANGES_MAX, type ReadContext } from "./reading.ts";
import { MmioEndpoint as EndpointNode, PciRange, Viot, VirtioMmio, VirtioPci } from "./viot.ts";

type RangeNode = StructureOf<typeof PciRange.layout.fields>;
type DeviceNode = StructureOf<typeof EndpointNode.layout.fields>;

const SOURCE = "drivers/acpi/viot.c";

/** Reads a VIOT as `acpi_viot_init` does. */
export function readViot(root: Structure, context: ReadContext): MachineParts {
  if (!isA(root, Viot)) {
    context.findings.add({
      code: "viot/draft",
      severity: "error",
      at: root.at,
      message: "This is the draft of 2019 that wraps another table",
      effect: "Linux reads node count 0 and finds no IOMMU in it; it still asks for ACS",
      source: `${SOURCE}: acpi_viot_init`,
    });
    return {};
  }
  return new ViotReader(root, context).read();
}

interface FoundIommu {
  readonly node: Structure;
  readonly endpoints: MmioEndpoint[];
}

class ViotReader {
  readonly #root: Structure;
  readonly #context: ReadContext;
  readonly #nodes: readonly Structure[];
  /** Nodes by offset: what `output node` means. */
  readonly #byOffset = new Map<number, Structure>();
  /** IOMMUs by the offset of their node, in order of first use. */
  readonly #iommus = new Map<number, FoundIommu>();
  /** Ranges by segment, in table order, for the IOMMU at an offset. */
  readonly #spans = new Map<number, Span<{ node: RangeNode; firstId: number; bdf: number }>[]>();
  #ranges = 0;

  constructor(root: Structure, context: ReadContext) {
    this.#root = root;
    this.#context = context;
    const all = root.items.filter((item) => item.kind === "structure");
    for (const node of all) this.#byOffset.set(node.at - root.at, node);
    this.#nodes = all.slice(0, Number(root.values.nodeCount));
    this.#checkHead(all.length);
  }

  read(): MachineParts {
    for (const node of this.#nodes) {
      if (isA(node, PciRange)) this.#addRange(node);
      else if (isA(node, EndpointNode)) this.#addEndpoint(node);
      else if (!isA(node, VirtioPci) && !isA(node, VirtioMmio) && !this.#skip(node)) break;
    }
    this.#checkUnused();
    return { iommus: this.#machineIommus() };
  }

  #checkHead(found: number): void {
    const { nodeCount, nodeOffset } = this.#root.values;
    const count = Number(nodeCount);
    const at = this.#root.at + Viot.layout.at.nodeCount;
    if (Number(nodeOffset) < Viot.layout.bytes) {
      this.#context.findings.add({
        code: "viot/node-offset",
        severity: "error",
        at: this.#root.at + Viot.layout.at.nodeOffset,
        message: `The first node would stand at ${nodeOffset}, inside the header`,
        effect: "Linux reads bytes of the header as a node",
        source: `${SOURCE}: acpi_viot_init`,
      });
    }
    if (count > found) {
      this.#context.findings.add({
        code: "viot/node-count",
        severity: "warning",
        at,
        message: `The table promises ${count} nodes and holds ${found}`,
        effect: "Linux uses those that exist and logs `[Firmware Bug]: Node pointer overflows`",
        source: `${SOURCE}: viot_check_bounds`,
      });
    } else if (count < found) {
      this.#context.findings.add({
        code: "viot/node-count",
        severity: count === 0 ? "error" : "warning",
        at,
        message: `The table promises ${count} nodes and holds ${found}`,
        effect: "Linux does not look at the others, except as somebody's output node",
        source: `${SOURCE}: acpi_viot_init`,
      });
    }
  }

  /** A node that Linux does not use. @returns whether it goes on behind it */
  #skip(node: Structure): boolean {
    const type = Number(node.values.type);
    const isEndpoint = type === PciRange.type || type === EndpointNode.type;
    if (isEndpoint) {
      this.#context.findings.add({
        code: "viot/node-short",
        severity: "error",
        at: node.at,
        message: `A node of type ${type} needs 24 bytes and has ${node.length}`,
        effect: "Linux logs `Invalid PCI node size` or `MMIO`, and reads no node behind it",
        source: `${SOURCE}: viot_parse_node`,
      });
      return false;
    }
    if (type === VirtioPci.type || type === VirtioMmio.type) return true;
    this.#context.findings.add({
      code: "viot/node-unknown",
      severity: "warning",
      at: node.at,
      message: `Nobody knows nodes of type ${type}`,
      effect: `Linux logs \`Unsupported node ${type.toString(16)}\` and goes on behind it`,
      source: `${SOURCE}: viot_parse_node`,
    });
    return true;
  }

  /** The IOMMU that an output node names, or null after saying what is wrong. */
  #iommuAt(node: Structure, offset: number): FoundIommu | null {
    const known = this.#iommus.get(offset);
    if (known !== undefined) return known;
    const target = this.#byOffset.get(offset);
    if (target !== undefined && (isA(target, VirtioPci) || isA(target, VirtioMmio))) {
      const found: FoundIommu = { node: target, endpoints: [] };
      this.#iommus.set(offset, found);
      return found;
    }
    const isOutside = offset < Number(this.#root.values.nodeOffset) || target === undefined;
    this.#context.findings.add({
      code: "viot/output-node",
      severity: "error",
      at: node.at + PciRange.layout.at.outputNode,
      message: isOutside
        ? `Output node ${offset} is not where a node starts`
        : `Output node ${offset} is no IOMMU but a node of type ${target?.values.type}`,
      effect: "Linux logs `No IOMMU node found`; these devices run untranslated",
      source: `${SOURCE}: viot_get_iommu`,
    });
    return null;
  }

  #addEndpoint(node: DeviceNode): void {
    const { base, endpoint, outputNode } = node.values;
    this.#iommuAt(node, outputNode)?.endpoints.push({ base, id: endpoint, path: null });
  }

  #addRange(node: RangeNode): void {
    const { segmentStart, segmentEnd, bdfStart, bdfEnd, endpointStart, outputNode } = node.values;
    if (this.#iommuAt(node, outputNode) === null) return;
    if (segmentEnd < segmentStart || bdfEnd < bdfStart) {
      this.#context.findings.add({
        code: "viot/range-empty",
        severity: "error",
        at: node.at,
        message: "The range ends before it starts",
        effect: "Linux finds no device in it",
        source: `${SOURCE}: viot_pci_dev_iommu_init`,
      });
      return;
    }
    const strides = segmentEnd - segmentStart;
    if (endpointStart + strides * 0x1_0000 + (bdfEnd - bdfStart) > 0xffff_ffff) {
      this.#context.findings.add({
        code: "viot/endpoint-wraps",
        severity: "error",
        at: node.at + PciRange.layout.at.endpointStart,
        message: "Endpoint IDs of this range pass 32 bits",
        effect: "The IDs wrap around and meet those of other devices",
        source: `${SOURCE}: viot_pci_dev_iommu_init`,
      });
    }
    this.#ranges += strides + 1;
    if (this.#ranges > RANGES_MAX) {
      this.#context.findings.add({
        code: "viot/too-many-segments",
        severity: "warning",
        at: node.at,
        message: `More than ${RANGES_MAX} ranges of single segments; the rest is left out`,
      });
      return;
    }
    for (let stride = 0; stride <= strides; stride += 1) {
      const spans = this.#spans.get(segmentStart + stride) ?? [];
      this.#spans.set(segmentStart + stride, spans);
      const firstId = (endpointStart + stride * 0x1_0000) % 2 ** 32;
      spans.push({ first: bdfStart, last: bdfEnd, value: { node, firstId, bdf: bdfStart } });
    }
  }

  #machineIommus(): Iommu[] {
    const ranges = new Map<number, RidRange[]>([...this.#iommus.keys()].map((key) => [key, []]));
    const segments = [...this.#spans].sort((a, b) => a[0] - b[0]);
    for (const [segment, spans] of segments) {
      const cut = laterWins(spans);
      if (cut.length !== spans.length || cut.some((span, index) => !isSame(span, spans[index]!))) {
        this.#checkOverlap(segment, spans);
      }
      for (const { first, last, value } of cut) {
        const firstId = (value.firstId + (first - value.bdf)) % 2 ** 32;
        const range = { segment, firstRid: first, lastRid: last, firstId, includesBelow: false };
        ranges.get(value.node.values.outputNode)!.push(range);
      }
    }
    return [...this.#iommus].map(([offset, found]) => this.#iommu(found, ranges.get(offset)!));
  }

  #checkOverlap(segment: number, spans: readonly Span<{ node: RangeNode }>[]): void {
    const sorted = [...spans].sort((a, b) => a.first - b.first);
    const second = sorted.find((span, index) => index > 0 && sorted[index - 1]!.last >= span.first);
    if (second === undefined) return;
    this.#context.findings.add({
      code: "viot/overlap",
      severity: "warning",
      at: second.value.node.at,
      message: `Ranges of segment ${segment} overlap from ${hex(second.first, 4)} on`,
      effect: "The range that is later in the table wins",
      source: `${SOURCE}: viot_pci_dev_iommu_init`,
    });
  }

  #iommu(found: FoundIommu, translates: readonly RidRange[]): Iommu {
    const { node, endpoints } = found;
    const common = {
      node: null,
      includesRest: false,
      translates,
      endpoints,
      interruptSources: [],
    };
    if (isA(node, VirtioPci)) {
      const { segment, bdf } = node.values;
      const name = pciName(addressOfRid(segment, bdf));
      return { ...common, kind: "virtio-pci", name, segment, rid: bdf };
    }
    const start = node.values.base as bigint;
    return {
      ...common,
      kind: "virtio-mmio",
      name: `virtio-mmio.${hex(start)}`,
      registers: { start, last: start },
      interrupts: [],
    };
  }

  #checkUnused(): void {
    for (const node of this.#nodes) {
      if (!isA(node, VirtioPci) && !isA(node, VirtioMmio)) continue;
      if (this.#iommus.has(node.at - this.#root.at)) continue;
      this.#context.findings.add({
        code: "viot/iommu-unused",
        severity: "warning",
        at: node.at,
        message: "No range names this IOMMU",
        effect:
          "Linux never looks at it; the device gets no firmware node from here, and its driver " +
          "dereferences NULL where nothing else gives it one",
        source: `${SOURCE}: viot_get_iommu`,
      });
    }
  }
}

function isSame(a: Span<unknown>, b: Span<unknown>): boolean {
  return a.first === b.first && a.last === b.last;
}
