/** The verb `run` for workloads of devices: windows, all-reduce, accelerators, starts of VMs. */
import { studyFromSource } from "../config/read-study.ts";
import type { YamlSource } from "../config/yaml-source.ts";
import { StackError } from "../errors.ts";
import { type StudyResult, studyCsv, studyJson } from "../report/study-result.ts";
import { renderStudy } from "../report/study-text.ts";
import { compareStudy, type Study } from "../sim/study/study.ts";
import { placed } from "./placed.ts";
import { Exit } from "./problem.ts";
import type { RunFlags } from "./run-input.ts";
import type { Terminal } from "./terminal.ts";
import { writeTimeline } from "./timeline.ts";

/**
 * Runs one.
 *
 * @returns `Exit.NO` when a run did not settle, though what is known is printed
 */
export async function runStudy(
  source: YamlSource,
  flags: RunFlags,
  terminal: Terminal,
): Promise<Exit> {
  refuseOthers(flags);
  const { study, machine, seed } = studyFromSource(source, {
    policies: flags.policy ?? null,
    seed: flags.seed ?? null,
  });
  const rows = placed(source.positionOf(["machine"]), () =>
    compareStudy(study, (what) => terminal.progress(what, null)),
  );
  const { kind, title, picture } = study;
  const result = { machine: { ...machine, picture }, seed, kind, title, rows };
  if (flags.perfetto !== undefined) await writeTimeline(flags.perfetto, timelinesOf(study, result));
  terminal.print(await textOf(result, flags, terminal));
  const unsettled = rows.filter(({ run }) => run.speed === null);
  if (unsettled.length === 0) return Exit.DONE;
  const names = unsettled.map(({ name }) => name).join(", ");
  terminal.note(`iommukit: no steady state, so no mean: ${names}`);
  terminal.note("  hint: more accesses may settle it, if the workload settles at all");
  return Exit.NO;
}

/** Flags that only jobs have. */
function refuseOthers({ machine, section, time }: RunFlags): void {
  const given = [
    ...(machine === undefined ? [] : ["--machine"]),
    ...((section ?? []).length === 0 ? [] : ["--section"]),
    ...(time === undefined ? [] : ["--time"]),
  ];
  if (given.length === 0) return;
  throw new StackError({
    code: "cli/usage",
    kind: "usage",
    message: `${given.join(", ")} is for fio jobs; this scenario has another workload`,
    hint: "the scenario itself says on which machine and how long it runs",
  });
}

function timelinesOf({ variants }: Study, { rows, title }: StudyResult) {
  return variants.map((variant, index) => ({
    name: `${title}: ${variant.name}`,
    slices: variant.timeline(rows[index]!.run),
  }));
}

async function textOf(result: StudyResult, flags: RunFlags, terminal: Terminal): Promise<string> {
  if (flags.json) return `${JSON.stringify(studyJson(result), null, 2)}\n`;
  if (flags.csv) return studyCsv(result);
  if (flags.html) {
    const { studyHtml } = await import("../report/study-html.ts");
    return studyHtml(result);
  }
  return `${renderStudy(result, terminal.width, terminal.style).join("\n")}\n`;
}
