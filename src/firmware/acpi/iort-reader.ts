/**
 * What Linux makes of an IORT: SMMUs with the functions and devices whose ids lead to them, reserved
 * memory, ATS. Source: Linux 7.2 drivers/acpi/arm64/iort.c.
 */

import type {
  FirmwareRegion,
  HostBridge,
  Iommu,
  MmioEndpoint,
  RidRange,
} from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { laterWins, type Span } from "../rid-spans.ts";
import { isA, itemsOf, type Structure, type StructureOf, textOf } from "../table-item.ts";
import {
  IdMapping,
  Iort,
  ItsGroup,
  NamedComponent,
  Rmr,
  RmrDescriptor,
  RootComplex,
  SmmuInterrupt,
  SmmuV2,
  SmmuV3,
  SmmuV3Placement,
} from "./iort.ts";
import { draftIommu, isDraft } from "./iort-draft.ts";
import { ownMapping } from "./iort-own-mapping.ts";
import { type MachineParts, RANGES_MAX, type ReadContext } from "./reading.ts";

const SOURCE = "drivers/acpi/arm64/iort.c";
const RID_LAST = 0xffff;
/** Nodes that a mapping may lead through; real tables need two. */
const HOPS_MAX = 16;
const SMMU_V3_BYTES = 0x2_0000n;
/** Revision of the table from which on Linux reads reserved memory ranges. */
const RMR_REVISION_MIN = 5;

/** Reads an IORT. @param isWrapped - whether it stands in a draft VIOT, where 0x80 and 0x81 count */
export function readIort(root: Structure, context: ReadContext, isWrapped = false): MachineParts {
  return new IortReader(root, context, isWrapped).read();
}

/** Ids that lead to an IOMMU: input `first … last` come out from `output` on. */
interface Route {
  readonly node: Structure;
  readonly output: number;
}

class IortReader {
  readonly #root: Structure;
  readonly #context: ReadContext;
  readonly #isWrapped: boolean;
  readonly #nodes: readonly Structure[];
  readonly #byOffset = new Map<number, Structure>();
  readonly #ranges = new Map<Structure, RidRange[]>();
  readonly #endpoints = new Map<Structure, MmioEndpoint[]>();
  readonly #bridges: HostBridge[] = [];
  readonly #segments = new Set<number>();
  readonly #mappings = new Map<Structure, StructureOf<typeof IdMapping.layout.fields>[]>();
  readonly #circles = new Set<Structure>();
  /** Mappings whose last ID goes to another one. */
  readonly #shared = new Set<Structure>();
  #steps = 0;

  constructor(root: Structure, context: ReadContext, isWrapped: boolean) {
    this.#root = root;
    this.#context = context;
    this.#isWrapped = isWrapped;
    const all = root.items.filter((item) => item.kind === "structure");
    for (const node of all) this.#byOffset.set(node.at - root.at, node);
    this.#nodes = all.slice(0, Number(root.values.nodeCount));
    if (Number(root.values.nodeCount) > all.length) {
      const effect = "Linux warns `IORT node pointer overflows, bad table!` at every device";
      const message = `The table promises ${root.values.nodeCount} nodes and holds ${all.length}`;
      this.#warn(
        "iort/node-count",
        root.at + Iort.layout.at.nodeCount,
        message,
        effect,
        "iort_scan_node",
      );
    }
  }

  read(): MachineParts {
    for (const node of this.#nodes) {
      if (this.#isIommu(node)) {
        this.#ranges.set(node, []);
        this.#endpoints.set(node, []);
      }
    }
    for (const node of this.#nodes) {
      if (isA(node, RootComplex)) this.#addRootComplex(node);
      else if (isA(node, NamedComponent)) this.#addComponent(node);
      else if (node.format.type === null) this.#noteUnknown(node);
    }
    const iommus = [...this.#ranges.keys()].map((node) => this.#iommu(node));
    return { iommus, firmwareRegions: this.#regions(), hostBridges: this.#bridges };
  }

  #warn(
    code: `iort/${string}`,
    at: number,
    message: string,
    effect: string,
    where: string,
    severity: "error" | "warning" | "note" = "warning",
  ): void {
    const source = `${SOURCE}: ${where}`;
    this.#context.findings.add({ code, severity, at, message, effect, source });
  }

  #isIommu(node: Structure): boolean {
    if (isA(node, SmmuV2) || isA(node, SmmuV3)) return true;
    return this.#isWrapped && isDraft(node);
  }

  #noteUnknown(node: Structure): void {
    const message = `Nobody knows nodes of type ${hex(Number(node.values.type), 2)}, or it is too short`;
    this.#warn("iort/node-unknown", node.at, message, "Linux skips it", "iort_scan_node", "note");
  }

  #addRootComplex(node: StructureOf<typeof RootComplex.layout.fields>): void {
    const { segment, revision, addressBits, ats } = node.values;
    if (this.#segments.has(segment)) {
      const message = `There is an earlier root complex for segment ${segment}`;
      this.#warn(
        "iort/segment-twice",
        node.at,
        message,
        "Linux uses the first",
        "iort_match_node_callback",
      );
      return;
    }
    this.#segments.add(segment);
    if (revision >= 1 && addressBits === 0) {
      const at = node.at + RootComplex.layout.at.addressBits;
      const effect = "Linux reports a shift out of bounds and `missing memory address limit`";
      const message = "Memory addresses of 0 bits; 64 is no limit";
      this.#warn("iort/address-bits", at, message, effect, "rc_dma_get_range");
    }
    for (const { first, last, value } of this.#routesOf(node)) {
      this.#ranges.get(value.node)?.push({
        segment,
        firstRid: first,
        lastRid: last,
        firstId: value.output,
        includesBelow: false,
      });
    }
    const parts = { segment, firstBus: 0, lastBus: 255, node: null, ecamBase: null, windows: [] };
    this.#bridges.push({ ...parts, bypassesIommu: false, atsSupported: (ats & 1) !== 0 });
  }

  #addComponent(node: StructureOf<typeof NamedComponent.layout.fields>): void {
    const path = textOf(node);
    for (const mapping of itemsOf(node, IdMapping)) {
      const { outputBase, flags } = mapping.values;
      const target = this.#targetOf(node, mapping);
      if (target === null) continue;
      // A component has no requester ids: each mapping is one id, whatever its input says.
      if (this.#isIommu(target)) {
        this.#endpoints.get(target)?.push({ base: 0n, id: outputBase, path });
      } else if ((flags & 1) === 0 && !isA(target, ItsGroup)) {
        this.#follow(target, outputBase, outputBase, 1).forEach((span) => {
          this.#endpoints.get(span.value.node)?.push({ base: 0n, id: span.value.output, path });
        });
      }
    }
  }

  /** Where a mapping leads, or null after saying why nowhere. */
  #targetOf(
    node: Structure,
    mapping: StructureOf<typeof IdMapping.layout.fields>,
  ): Structure | null {
    const { outputReference } = mapping.values;
    const at = mapping.at + IdMapping.layout.at.outputReference;
    if (outputReference === 0) {
      const effect = "Linux logs `ID map has NULL parent reference`: no IOMMU, no MSI";
      this.#warn(
        "iort/reference-null",
        at,
        "The mapping leads nowhere",
        effect,
        "iort_id_map",
        "error",
      );
      return null;
    }
    const target = this.#byOffset.get(outputReference);
    if (target === undefined) {
      const effect = "Linux takes the bytes there for a node";
      const message = `No node starts at ${hex(outputReference)}`;
      this.#warn("iort/reference", at, message, effect, "iort_node_map_id", "error");
      return null;
    }
    if (isDraft(target) && !this.#isWrapped) {
      const effect = "Linux reports a shift out of bounds; devices get no IOMMU";
      const message = `${node.format.title} leads to a virtio-iommu node of the 2019 drafts`;
      this.#warn("iort/draft-node", at, message, effect, "iort_node_map_id", "error");
      return null;
    }
    return target;
  }

  /** Requester ids of a root complex that lead to IOMMUs, disjoint and ascending. */
  #routesOf(node: Structure): readonly Span<Route>[] {
    return this.#follow(node, 0, RID_LAST, 0);
  }

  /** Ids `first … last` at a node, followed to IOMMUs; bounded by hops and by work. */
  #follow(node: Structure, first: number, last: number, hops: number): readonly Span<Route>[] {
    if (hops > HOPS_MAX) {
      if (this.#circles.has(node)) return [];
      this.#circles.add(node);
      const effect = "Linux follows the references for ever";
      const message = "ID mappings lead in a circle";
      this.#warn("iort/cycle", node.at, message, effect, "iort_node_map_id", "error");
      return [];
    }
    const spans: Span<Route>[] = [];
    for (const mapping of this.#mappingsOf(node)) {
      this.#steps += 1;
      if (this.#steps > RANGES_MAX) {
        if (this.#steps === RANGES_MAX + 1) this.#noteTooMany(mapping.at);
        break;
      }
      this.#followOne(node, mapping, { first, last, hops }, spans);
    }
    // The first mapping that fits wins, so the list is cut from its end.
    return laterWins(spans.reverse());
  }

  #noteTooMany(at: number): void {
    const message = `Mappings that lead through others take more than ${RANGES_MAX} steps`;
    this.#context.findings.add({
      code: "iort/too-many-steps",
      severity: "warning",
      at,
      message: `${message}; the rest is left out here`,
    });
  }

  #mappingsOf(node: Structure): StructureOf<typeof IdMapping.layout.fields>[] {
    const known = this.#mappings.get(node);
    if (known !== undefined) return known;
    const mappings = itemsOf(node, IdMapping);
    this.#mappings.set(node, mappings);
    this.#checkCounts(mappings);
    return mappings;
  }

  #followOne(
    node: Structure,
    mapping: StructureOf<typeof IdMapping.layout.fields>,
    asked: { first: number; last: number; hops: number },
    spans: Span<Route>[],
  ): void {
    const { inputBase, idCount, outputBase, flags } = mapping.values;
    const isSingle = (flags & 1) !== 0;
    const start = isSingle ? asked.first : Math.max(asked.first, inputBase);
    const mapped = inputBase + idCount - (this.#shared.has(mapping) ? 1 : 0);
    const end = isSingle ? asked.last : Math.min(asked.last, mapped);
    if (start > end) return;
    const target = this.#targetOf(node, mapping);
    if (target === null || isA(target, ItsGroup)) return;
    const output = isSingle ? outputBase : outputBase + (start - inputBase);
    if (this.#isIommu(target)) {
      spans.push({ first: start, last: end, value: { node: target, output } });
      return;
    }
    const span = isSingle ? 0 : end - start;
    for (const inner of this.#follow(target, output, output + span, asked.hops + 1)) {
      const first = start + (inner.first - output);
      spans.push({ first, last: first + (inner.last - inner.first), value: inner.value });
    }
  }

  /** A mapping that ends where another starts was written with N instead of N − 1 (F35). */
  #checkCounts(mappings: readonly StructureOf<typeof IdMapping.layout.fields>[]): void {
    const starts = new Set(mappings.map((mapping) => mapping.values.inputBase));
    for (const mapping of mappings) {
      const { inputBase, idCount, flags } = mapping.values;
      if (idCount === 0 || (flags & 1) !== 0 || !starts.has(inputBase + idCount)) continue;
      this.#shared.add(mapping);
      const at = mapping.at + IdMapping.layout.at.idCount;
      const message = `The mapping ends with ${hex(inputBase + idCount)}, where another one starts`;
      const effect = "Linux logs `conflicting mapping … applying workaround`: the later one wins";
      this.#warn("iort/id-count", at, message, effect, "iort_id_map");
    }
  }

  #iommu(node: Structure): Iommu {
    const common = {
      node: null,
      includesRest: false,
      translates: this.#ranges.get(node)!,
      endpoints: this.#endpoints.get(node)!,
      interruptSources: [],
    };
    if (isA(node, SmmuV3)) {
      const own = ownMapping(node);
      if (own !== null) this.#warn("iort/own-mapping", own.at, own.message, own.effect, own.where);
      const { base, flags, eventGsiv, priGsiv, errorGsiv, syncGsiv } = node.values;
      return {
        ...common,
        kind: "smmuv3",
        name: `smmu3.${hex(base, 16)}`,
        node: this.#nodeOf(node, flags),
        registers: { start: base, last: base + SMMU_V3_BYTES - 1n },
        isCoherent: (flags & 1) !== 0,
        interrupts: [eventGsiv, priGsiv, errorGsiv, syncGsiv],
      };
    }
    if (isA(node, SmmuV2)) {
      const { base, span, flags } = node.values;
      const globals = node.items.filter((item) => item.kind === "structure");
      return {
        ...common,
        kind: "smmuv2",
        name: `smmu.${hex(base, 16)}`,
        registers: { start: base, last: base + (span === 0n ? 0n : span - 1n) },
        isCoherent: (flags & 2) !== 0,
        interrupts: globals
          .filter((item) => item.format.kind === "global-interrupt" || isA(item, SmmuInterrupt))
          .map((item) => Number(item.values.gsiv)),
      };
    }
    return draftIommu(node, common);
  }

  #nodeOf(node: Structure, flags: number): number | null {
    const placement = itemsOf(node, SmmuV3Placement)[0];
    if ((flags & 8) === 0 || placement === undefined) return null;
    return this.#context.nodeOf(placement.values.proximityDomain);
  }

  #regions(): FirmwareRegion[] {
    const regions: FirmwareRegion[] = [];
    for (const node of this.#nodes) {
      if (!isA(node, Rmr)) continue;
      if (Number(this.#root.values.revision) < RMR_REVISION_MIN) {
        const message = `Reserved memory in a table of revision ${this.#root.values.revision}`;
        this.#warn(
          "iort/rmr-revision",
          node.at,
          message,
          "Linux ignores it below 5",
          "iort_find_rmrs",
        );
        continue;
      }
      const functions = this.#functionsOf(node);
      for (const descriptor of itemsOf(node, RmrDescriptor)) {
        const { base, bytes } = descriptor.values;
        this.#checkRegion(descriptor.at, base, bytes);
        if (bytes === 0n || base + bytes > 2n ** 64n) continue;
        regions.push({
          start: base,
          last: base + bytes - 1n,
          source: "rmr",
          treatment: "mapped",
          canRead: true,
          canWrite: true,
          functions,
        });
      }
    }
    return regions;
  }

  #checkRegion(at: number, base: bigint, bytes: bigint): void {
    if (bytes !== 0n && base % 0x1_0000n === 0n && bytes % 0x1_0000n === 0n) return;
    const message = `Reserved memory ${hex(base)} of ${hex(bytes)} bytes is not in steps of 64 KiB`;
    const effect = "Linux rounds it to pages and complains";
    this.#warn("iort/rmr-range", at, message, effect, "iort_rmr_alloc");
  }

  /** Functions whose ids at an SMMU are those that the node maps to. */
  #functionsOf(node: Structure): RidRange[] {
    const functions: RidRange[] = [];
    for (const mapping of itemsOf(node, IdMapping)) {
      const target = this.#targetOf(node, mapping);
      if (target === null) continue;
      const { outputBase, idCount, flags } = mapping.values;
      const last = outputBase + ((flags & 1) !== 0 ? 0 : idCount);
      for (const range of this.#ranges.get(target) ?? []) {
        this.#steps += 1;
        if (this.#steps > 4 * RANGES_MAX) return functions;
        const from = Math.max(outputBase, range.firstId);
        const to = Math.min(last, range.firstId + (range.lastRid - range.firstRid));
        if (from > to) continue;
        const firstRid = range.firstRid + (from - range.firstId);
        const lastRid = range.firstRid + (to - range.firstId);
        functions.push({ ...range, firstRid, lastRid, firstId: from });
      }
    }
    return functions;
  }
}
