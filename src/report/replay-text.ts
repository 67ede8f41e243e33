/** A replay's outcome as lines for a terminal. */
import type { RecordingReplay, WorkloadFacts } from "../recording/replay/result.ts";
import { cellText, countText, durationText } from "./column.ts";
import { policyColumn, terminalSections } from "./replay-report.ts";
import { renderSections, type Style, wrap } from "./table.ts";

const iommuTitles = {
  virtio: "virtio-iommu: the guest's driver, its request queue and the device",
  hardware: "hardware IOMMU: VT-d second-stage tables, IOTLB and invalidation queue",
} as const;

/** Renders one recording's replay. @param width - columns of the terminal */
export function renderReplay(replay: RecordingReplay, width: number, style: Style): string[] {
  const lines: string[] = [];
  const facts = workloadSentences(replay.workload);
  lines.push(style("title", `${replay.file}  ${replay.kind}`));
  for (const fact of facts) lines.push(...wrap(fact, width, "  ", "  "));
  lines.push(...wrap(`Replayed on a ${iommuTitles[replay.iommu]}`, width, "  ", "  "), "");
  const sections = terminalSections(replay.iommu, replay.policies);
  lines.push(...renderSections(policyColumn, sections, replay.policies, width, style));
  lines.push("", style("title", "What each policy buys and risks here"));
  const nameWidth = Math.max(...replay.policies.map(({ policy }) => policy.length)) + 2;
  for (const { policy, verdict } of replay.policies) {
    const indent = " ".repeat(nameWidth);
    const [first = "", ...rest] = wrap(verdict, width, indent);
    lines.push(style("name", policy.padEnd(nameWidth)) + first.slice(nameWidth), ...rest);
  }
  return lines;
}

function workloadSentences(facts: WorkloadFacts): string[] {
  const sentences: string[] = [];
  const time = facts.durationNs === null ? "" : ` in ${durationText(facts.durationNs)}`;
  const cpus = facts.cpus === null ? "" : ` on ${plural(facts.cpus, "CPU")}`;
  sentences.push(`${countText(facts.events)} events${time}${cpus}`);
  if (facts.lostMarkers > 0) {
    const many = facts.lostEvents > 0 ? `${countText(facts.lostEvents)} events` : "events";
    sentences.push(
      `LOST: the recording says that ${many} are missing, in ${plural(facts.lostMarkers, "place")}: ` +
        "every count below is too low",
    );
  }
  const mean =
    facts.bytesMean === null ? "" : ` of ${cellText(facts.bytesMean, "bytes")} on average`;
  sentences.push(
    `${countText(facts.allocations)} buffers mapped${mean}, ${cellText(facts.scattered, "count")} of ` +
      `several pieces; ${countText(facts.frees)} unmapped; at most ${cellText(facts.peakLiveBytes, "bytes")} at once`,
  );
  if (facts.inferred > 0 || facts.liveAtEnd > 0) {
    sentences.push(
      `${countText(facts.inferred)} ${facts.inferred === 1 ? "was" : "were"} mapped before the ` +
        `recording began, ${countText(facts.liveAtEnd)} still ` +
        `${facts.liveAtEnd === 1 ? "is" : "are"} at its end`,
    );
  }
  return sentences;
}

function plural(count: number, noun: string): string {
  return `${countText(count)} ${noun}${count === 1 ? "" : "s"}`;
}
