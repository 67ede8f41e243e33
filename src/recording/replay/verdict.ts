/** One sentence a policy: what it buys and what it risks, from the numbers of this recording. */

import type { Policy } from "../../dma/policy.ts";
import { sizeText } from "../../units.ts";
import type { IommuKind, PolicyResult } from "./result.ts";

/** Bytes of the 32-bit space from which on a sentence names them. */
const SPACE_WORTH_TELLING = 128 * 1024 * 1024;

/** A result before its sentence is made. */
export type Unjudged = Omit<PolicyResult, "verdict">;

/** What the sentences compare with. */
export interface VerdictBasis {
  readonly iommu: IommuKind;
  /** The result of plain strict mode on the same recording, when it was replayed too. */
  readonly strict: Unjudged | null;
}

/** Says what a policy buys and what it risks. */
export function verdictOf(policy: Policy, result: Unjudged, basis: VerdictBasis): string {
  if (policy.mode === "passthrough") {
    return "No request, no wait and no table; nothing protects memory: the device reaches all of it, always.";
  }
  return `${buys(policy, result, basis)}; ${risks(policy, result, basis)}${spaceTaken(result, basis)}.`;
}

function buys(policy: Policy, result: Unjudged, basis: VerdictBasis): string {
  const { syncs, syncsPerUnmap } = result.requests;
  const each = syncsPerUnmap === null ? "" : ` (${syncsPerUnmap.toFixed(2)} per unmapped buffer)`;
  const waits = `${countWord(syncs, "wait")}${each}`;
  const strict = basis.strict;
  if (policy.name === "strict") return `Costs ${waits}`;
  if (strict === null) return `Takes ${waits}`;
  const saved = strict.requests.syncs - syncs;
  if (strict.requests.syncs === 0) return `Takes ${waits}, as strict does`;
  const share = saved / strict.requests.syncs;
  if (Math.abs(share) < 0.0005) {
    const why =
      basis.iommu === "hardware" && policy.mode === "strict"
        ? ": hardware needs no wait for a new mapping"
        : "";
    return `Takes ${waits}, no fewer than strict${why}`;
  }
  if (saved < 0) return `Takes ${waits}, ${percent(-share)} more than strict`;
  return `Saves ${percent(share)} of strict's waits: ${waits}`;
}

function risks(policy: Policy, result: Unjudged, basis: VerdictBasis): string {
  const { exposure, iova } = result;
  const left32 =
    iova !== null && iova.above4GiB > 0
      ? `, and ${countWord(iova.above4GiB, "allocation")} left the 32-bit space`
      : "";
  const failed =
    iova !== null && iova.failed > 0 ? `, and ${countWord(iova.failed, "mapping")} failed` : "";
  if (exposure === null || exposure.unmaps === 0) {
    const when =
      policy.mode === "strict"
        ? "nothing stays reachable after its unmap"
        : "here nothing stayed reachable after its unmap, though a longer run may leave some";
    return `${when}${left32}${failed}`;
  }
  const times =
    exposure.longestNs === null || exposure.meanNs === null
      ? ", for a time that this recording cannot tell"
      : `, for up to ${milliseconds(exposure.longestNs)} (${milliseconds(exposure.meanNs)} on average)`;
  const way = basis.iommu === "hardware" ? " through stale IOTLB entries" : "";
  return `leaves up to ${sizeWords(exposure.peakBytes)} reachable after unmap${way}${times}${left32}${failed}`;
}

/** Address space that waits in a flush queue, where it is much. */
function spaceTaken(result: Unjudged, { strict }: VerdictBasis): string {
  const bytes = result.iova?.below4GiBPeakBytes ?? 0;
  const usual = strict?.iova?.below4GiBPeakBytes ?? 0;
  if (bytes < SPACE_WORTH_TELLING || bytes < 4 * usual) return "";
  return `; takes up to ${sizeWords(bytes)} of the 32-bit space (strict: ${sizeWords(usual)})`;
}

function countWord(count: number, noun: string): string {
  const digits = count.toString().replace(/\B(?=(\d{3})+$)/g, ",");
  return `${digits} ${noun}${count === 1 ? "" : "s"}`;
}

function percent(share: number): string {
  const value = share * 100;
  return `${value < 1 || value > 99 ? value.toFixed(1) : value.toFixed(0)} %`;
}

function milliseconds(ns: number): string {
  const value = ns / 1e6;
  return `${value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

function sizeWords(bytes: number): string {
  return sizeText(bytes).replace(/([\d.])([A-Z])/, "$1 $2");
}
