/**
 * Where a process has mapped BARs of devices that VFIO hands to it, and whether huge pages fit.
 *
 * A page of 2 MiB or 1 GiB of a BAR is used where it is whole in the mapping, and address and
 * physical address agree modulo its size; an IOMMU's leaf is made of such pages. A BAR is aligned to
 * its own size, so that the offset into it stands for the physical address. Source: Linux 7.2
 * drivers/vfio/pci/vfio_pci_core.c: vfio_pci_mmap_huge_fault (since 6.12), include/linux/
 * vfio_pci_core.h: is_aligned_for_order, VFIO_PCI_INDEX_TO_OFFSET; fs/proc/task_mmu.c: show_map_vma.
 */
import { hex, sizeText } from "../units.ts";
import { type Finding, finding } from "./findings.ts";

/** A mapping of a part of a BAR. */
export interface BarMapping {
  /** Address in the process. */
  readonly start: bigint;
  readonly bytes: bigint;
  readonly bar: number;
  /** From the start of the BAR. */
  readonly offset: bigint;
}

const MIB_2 = 2n << 20n;
const GIB = 1n << 30n;
/** A region of a device stands at its index shifted by this. */
const REGION_SHIFT = 40n;
const BARS = 6n;
const MAPPINGS_MAX = 4096;
const LINE =
  /^([\da-f]{1,16})-([\da-f]{1,16}) [r-][w-].. ([\da-f]{1,16}) \S+ \d+\s+(?:anon_inode:\[vfio-device\]|\/dev\/vfio\/devices\/\S+)/gm;

/** Reads the text of `/proc/PID/maps`. */
export function barMappings(maps: string): BarMapping[] {
  const found: BarMapping[] = [];
  for (const match of maps.matchAll(LINE)) {
    const [start, end, at] = match.slice(1).map((digits) => BigInt(`0x${digits}`));
    const region = at! >> REGION_SHIFT;
    if (end! <= start! || region >= BARS) continue;
    const offset = at! - (region << REGION_SHIFT);
    found.push({ start: start!, bytes: end! - start!, bar: Number(region), offset });
    if (found.length >= MAPPINGS_MAX) break;
  }
  return found;
}

/** Says which of them are mapped by smaller pages than their size would allow. */
export function mappingFindings(mappings: readonly BarMapping[]): Finding[] {
  return mappings.flatMap((one) => {
    const leaf = [GIB, MIB_2].find((size) => one.bytes >= size);
    if (leaf === undefined) return [];
    const gap = (one.start - one.offset) & (leaf - 1n);
    if (gap === 0n) return [];
    const got = leaf === GIB && (gap & (MIB_2 - 1n)) === 0n ? MIB_2 : 4096n;
    return [
      finding("bar-unaligned", {
        message:
          `the process has ${sizeText(one.bytes)} of a BAR ${one.bar} at ${hex(one.start)}: pages of ` +
          `${sizeText(got)} instead of ${sizeText(leaf)}`,
        evidence: [
          `${hex(one.start)} less offset ${hex(one.offset)}, modulo ${hex(leaf)}, is ${hex(gap)}`,
        ],
        next: "grep -e vfio-device -e /dev/vfio/devices /proc/$(pgrep -o qemu)/maps",
      }),
    ];
  });
}
