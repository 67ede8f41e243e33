/** What fio says of a run, out of `--output-format=json`. */
import { StackError } from "../../errors.ts";

/** One run. */
export interface FioFigures {
  readonly ios: number;
  readonly bytesPerSecond: number;
  readonly iops: number;
  /** Of whole requests, submission included; reads and writes together. */
  readonly latencyNsMean: number;
  /** Largest of the percentiles of reads and of writes: fio keeps them apart. */
  readonly latencyNsP50: number;
  readonly latencyNsP99: number;
  readonly errors: number;
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}

function numberOf(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/**
 * Reads fio's output; what it says before the object is passed over.
 *
 * @throws StackError `live/fio` with what it said
 */
export function parseFio(output: string): FioFigures {
  const start = output.indexOf("{");
  let jobs: unknown;
  try {
    jobs = fieldsOf(JSON.parse(output.slice(Math.max(0, start)))).jobs;
  } catch {
    throw failed(output);
  }
  if (!Array.isArray(jobs) || jobs.length === 0) throw failed(output);
  const sides = jobs.flatMap((job) => [fieldsOf(job).read, fieldsOf(job).write].map(fieldsOf));
  const sum = (key: string) => sides.reduce((total, side) => total + numberOf(side[key]), 0);
  const ios = sum("total_ios");
  if (ios === 0) throw failed(output);
  const weighted = sides.reduce(
    (total, side) => total + numberOf(fieldsOf(side.lat_ns).mean) * numberOf(side.total_ios),
    0,
  );
  const percentile = (key: string) =>
    Math.max(...sides.map((side) => numberOf(fieldsOf(fieldsOf(side.clat_ns).percentile)[key])));
  return {
    ios,
    bytesPerSecond: sum("bw_bytes"),
    iops: sum("iops"),
    latencyNsMean: weighted / ios,
    latencyNsP50: percentile("50.000000"),
    latencyNsP99: percentile("99.000000"),
    errors: jobs.reduce((total, job) => total + numberOf(fieldsOf(job).total_err), 0),
  };
}

function failed(output: string): StackError {
  const said = output.trim().split("\n").slice(-3).join("; ").slice(0, 300);
  return new StackError({
    code: "live/fio",
    kind: "input",
    message: `fio gave no result in the guest: ${said === "" ? "it said nothing" : said}`,
    hint: "options that this fio does not know, or a disk that is too small, stand in its words",
  });
}
