/**
 * The page-table formats with the settings that machines have: what a user can name, and what the
 * suite of page tables runs on.
 */
import { amdV1 } from "./amd-v1.ts";
import { armStage1 } from "./arm-stage1.ts";
import { armStage2 } from "./arm-stage2.ts";
import type { PageTableFormat } from "./format.ts";
import { vtdSecondStage } from "./vtd-second-stage.ts";
import { amdV2, vtdFirstStage } from "./x86-64.ts";

/** Every format, in the order of its family; each has its own name. */
export function standardFormats(): PageTableFormat[] {
  return [
    vtdSecondStage({ levels: 3 }),
    vtdSecondStage({ levels: 4 }),
    vtdSecondStage({ levels: 5 }),
    vtdFirstStage({ levels: 4 }),
    vtdFirstStage({ levels: 5 }),
    amdV1(),
    amdV2({ levels: 4 }),
    amdV2({ levels: 5 }),
    armStage1({ granuleShift: 12, inputBits: 39, outputBits: 48 }),
    armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 }),
    armStage1({ granuleShift: 14, inputBits: 48, outputBits: 48 }),
    armStage1({ granuleShift: 16, inputBits: 48, outputBits: 48 }),
    armStage1({ granuleShift: 16, inputBits: 52, outputBits: 52 }),
    armStage2({ granuleShift: 12, inputBits: 40, outputBits: 40 }),
    armStage2({ granuleShift: 12, inputBits: 48, outputBits: 48 }),
    armStage2({ granuleShift: 14, inputBits: 40, outputBits: 40 }),
    armStage2({ granuleShift: 14, inputBits: 48, outputBits: 48 }),
    armStage2({ granuleShift: 16, inputBits: 52, outputBits: 52 }),
  ];
}

/** The format of a name, such as `vtd-second-stage-4`; null when there is none. */
export function formatByName(name: string): PageTableFormat | null {
  return standardFormats().find((format) => format.name === name) ?? null;
}
