/**
 * Stage 2 of Arm's LPAE page tables: roots may be concatenated.
 *
 * Source: Arm Architecture Reference Manual for A-profile (DDI 0487), D8.3.1 "VMSAv8-64 descriptor
 * formats", D8.2.2 "Concatenated translation tables", D8.6 "Memory types";
 * drivers/iommu/io-pgtable-arm.c:arm_lpae_prot_to_pte. Names there → here: S2AP → READ, WRITE;
 * MemAttr → device for MMIO, write-back for CACHE, else not cached; SH inner → CACHE. Dirty state
 * is not kept at this stage.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../prot.ts";
import {
  ACCESSED,
  type ArmLpaeOptions,
  armFormat,
  armGeometry,
  isInnerShareable,
  leafType,
  NO_EXECUTE_HIGH,
  shareability,
} from "./arm-lpae.ts";
import type { EntryWords, PageTableFormat } from "./format.ts";

const MEMORY_SHIFT = 2;
const MEMORY_DEVICE = 0x1;
const MEMORY_NOT_CACHED = 0x5;
const MEMORY_WRITE_BACK = 0xf;
const MEMORY_FORCED_WRITE_BACK = 0x6;
const READ = 1 << 6;
const WRITE = 1 << 7;

/** What stage 2 takes. */
export interface ArmStage2Options extends ArmLpaeOptions {
  /** Whether stage 2 overrides the cacheability of stage 1 (S2FWB). */
  readonly forceWriteBack?: boolean;
}

/** Stage 2 with these options. */
export function armStage2(options: ArmStage2Options): PageTableFormat {
  const geometry = armGeometry(options, true);
  const name = `arm-stage2-${2 ** (options.granuleShift - 10)}k-${geometry.inputBits}`;
  const cached = options.forceWriteBack === true ? MEMORY_FORCED_WRITE_BACK : MEMORY_WRITE_BACK;
  return armFormat(name, options, geometry, {
    tableHigh: 0,
    deniesHigh: 0,
    dirty: null,
    encodeLeaf(prot: number, level: number, _pageShift: number, out: EntryWords): number {
      if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
      const isCached = (prot & Prot.CACHE) !== 0;
      const memory = prot & Prot.MMIO ? MEMORY_DEVICE : isCached ? cached : MEMORY_NOT_CACHED;
      out.low =
        leafType(level) |
        (memory << MEMORY_SHIFT) |
        (prot & Prot.READ ? READ : 0) |
        (prot & Prot.WRITE ? WRITE : 0) |
        shareability(isCached) |
        ACCESSED;
      out.high = prot & Prot.NOEXEC ? NO_EXECUTE_HIGH : 0;
      return Errno.OK;
    },
    decodeProt(low: number, high: number): number {
      return (
        (low & READ ? Prot.READ : 0) |
        (low & WRITE ? Prot.WRITE : 0) |
        (isInnerShareable(low) ? Prot.CACHE : 0) |
        (((low >>> MEMORY_SHIFT) & 0xf) === MEMORY_DEVICE ? Prot.MMIO : 0) |
        ((high & NO_EXECUTE_HIGH) !== 0 ? Prot.NOEXEC : 0)
      );
    },
  });
}
