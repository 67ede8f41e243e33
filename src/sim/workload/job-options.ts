/**
 * What each fio option means to a simulated run, as a table: modelled, without influence on DMA, or
 * of influence and not modelled, which the reader of a job file is told.
 *
 * Source: fio's HOWTO, "Job parameters"; fio 3.33, options.c for the second names.
 */

/** Options that {@link fioJobs} reads. */
export type ModelledOption =
  | "rw"
  | "bs"
  | "bssplit"
  | "bsrange"
  | "size"
  | "io_size"
  | "iodepth"
  | "numjobs"
  | "runtime"
  | "ramp_time"
  | "time_based"
  | "rwmixread"
  | "rwmixwrite"
  | "ioengine"
  | "direct"
  | "buffered"
  | "thinktime"
  | "thinktime_blocks"
  | "rate_iops"
  | "stonewall"
  | "group_reporting"
  | "new_group"
  | "kb_base"
  | "filename";

/** What an option is to us. */
export type OptionClass =
  | { readonly kind: "modelled"; readonly name: ModelledOption }
  | { readonly kind: "neutral" }
  | { readonly kind: "ignored"; readonly why: string };

const modelled = (name: ModelledOption): OptionClass => ({ kind: "modelled", name });
const neutral: OptionClass = { kind: "neutral" };
const ignored = (why: string): OptionClass => ({ kind: "ignored", why });

const neutralNames =
  "description name directory filename_format unique_filename opendir fill_device append " +
  "filesize file_append random_generator allrandrepeat randrepeat randseed norandommap " +
  "softrandommap nrfiles openfiles file_service_type fallocate fadvise_hint loops clocksource " +
  "exec_prerun exec_postrun ioscheduler nice prio prioclass invalidate create_serialize " +
  "create_fsync create_on_open create_only allow_file_create allow_mounted_write pre_read " +
  "end_fsync fsync_on_close unlink unlink_each_loop exitall exit_what exitall_on_error thread " +
  "per_job_logs write_bw_log write_lat_log write_iops_log write_hist_log log_entries " +
  "log_avg_msec log_hist_msec log_hist_coarseness log_max_value log_offset log_prio " +
  "log_compression log_store_compressed log_unix_epoch log_alternate_epoch " +
  "log_alternate_epoch_clock_id block_error_percentiles stats zero_buffers refill_buffers " +
  "scramble_buffers buffer_pattern buffer_compress_percentage buffer_compress_chunk " +
  "dedupe_percentage dedupe_global clat_percentiles lat_percentiles slat_percentiles " +
  "percentile_list significant_figures disk_util disable_clat disable_slat disable_lat " +
  "gtod_reduce gtod_cpu unified_rw_reporting continue_on_error error_dump profile cgroup " +
  "cgroup_weight cgroup_nodelete uid gid unit_base lockmem job_start_clock_id";

const classes = new Map<string, OptionClass>([
  ...neutralNames.split(" ").map((name) => [name, neutral] as const),
  ["rw", modelled("rw")],
  ["readwrite", modelled("rw")],
  ["bs", modelled("bs")],
  ["blocksize", modelled("bs")],
  ["bssplit", modelled("bssplit")],
  ["size", modelled("size")],
  ["io_size", modelled("io_size")],
  ["io_limit", modelled("io_size")],
  ["iodepth", modelled("iodepth")],
  ["numjobs", modelled("numjobs")],
  ["runtime", modelled("runtime")],
  ["timeout", modelled("runtime")],
  ["ramp_time", modelled("ramp_time")],
  ["time_based", modelled("time_based")],
  ["rwmixread", modelled("rwmixread")],
  ["rwmixwrite", modelled("rwmixwrite")],
  ["ioengine", modelled("ioengine")],
  ["direct", modelled("direct")],
  ["buffered", modelled("buffered")],
  ["thinktime", modelled("thinktime")],
  ["thinktime_blocks", modelled("thinktime_blocks")],
  ["rate_iops", modelled("rate_iops")],
  ["stonewall", modelled("stonewall")],
  ["wait_for_previous", modelled("stonewall")],
  ["group_reporting", modelled("group_reporting")],
  ["new_group", modelled("new_group")],
  ["kb_base", modelled("kb_base")],
  ["filename", modelled("filename")],
  ["rate", ignored("throughput is what the machine can do, not this bandwidth")],
  ["bsrange", modelled("bsrange")],
  ["blocksize_range", modelled("bsrange")],
  ["bs_unaligned", ignored("requests are aligned to their size")],
  ["blockalign", ignored("requests are aligned to their size")],
  ["ba", ignored("requests are aligned to their size")],
  ["iomem", ignored("buffers are ordinary anonymous memory")],
  ["mem", ignored("buffers are ordinary anonymous memory")],
  ["hugepage-size", ignored("buffers are ordinary anonymous memory")],
  ["iomem_align", ignored("buffers are aligned to pages")],
  ["mem_align", ignored("buffers are aligned to pages")],
  ["offset", ignored("where on the disk a request goes does not matter here")],
  ["offset_increment", ignored("where on the disk a request goes does not matter here")],
  ["random_distribution", ignored("where on the disk a request goes does not matter here")],
  ["percentage_random", ignored("where on the disk a request goes does not matter here")],
  ["rw_sequencer", ignored("where on the disk a request goes does not matter here")],
  ["number_ios", ignored("a run ends by time or size")],
  ["startdelay", ignored("jobs of a group start together")],
  ["start_delay", ignored("jobs of a group start together")],
  ["wait_for", ignored("only stonewall orders jobs")],
  ["iodepth_batch", ignored("requests are submitted one by one")],
  ["iodepth_batch_submit", ignored("requests are submitted one by one")],
  ["iodepth_batch_complete", ignored("requests are reaped one by one")],
  ["iodepth_batch_complete_min", ignored("requests are reaped one by one")],
  ["iodepth_batch_complete_max", ignored("requests are reaped one by one")],
  ["iodepth_low", ignored("the queue is kept full")],
  ["io_submit_mode", ignored("requests are submitted inline")],
  ["fsync", ignored("flushes are not issued")],
  ["fdatasync", ignored("flushes are not issued")],
  ["sync", ignored("flushes are not issued")],
  ["verify", ignored("data is not verified")],
  ["do_verify", ignored("data is not verified")],
  ["thinktime_blocks_type", ignored("requests are counted when they are issued")],
  ["thinktime_spin", ignored("all of thinktime is slept, and the CPU is free meanwhile")],
  ["thinktime_iotime", ignored("a process thinks after thinktime_blocks requests")],
  ["rate_min", ignored("no bound on the rate is checked")],
  ["rate_iops_min", ignored("no bound on the rate is checked")],
  ["rate_process", ignored("requests come at even distances")],
  ["latency_target", ignored("the depth is not searched for")],
  ["latency_window", ignored("the depth is not searched for")],
  ["max_latency", ignored("no bound on latency is checked")],
  ["cpumask", ignored("jobs are spread over the CPUs in turn; `cpus` of a scenario binds them")],
  [
    "cpus_allowed",
    ignored("jobs are spread over the CPUs in turn; `cpus` of a scenario binds them"),
  ],
  ["cpus_allowed_policy", ignored("jobs are spread over the CPUs in turn")],
  ["numa_cpu_nodes", ignored("jobs are spread over the CPUs in turn")],
  ["numa_mem_policy", ignored("buffers lie on the node of the device")],
  ["zonemode", ignored("zones are not modelled")],
  ["read_iolog", ignored("no log is replayed")],
  ["write_iolog", ignored("no log is written")],
  ["flow", ignored("jobs do not wait for each other")],
  ["steadystate", ignored("the end of the warm-up is found by itself")],
]);

/** What an option is; null for one that fio does not know either. */
export function classOfOption(name: string): OptionClass | null {
  return classes.get(name) ?? null;
}

/** Known names that look like a wrong one, best first, at most three. */
export function similarOptions(name: string): string[] {
  return [...classes.keys()]
    .map((known) => ({ known, distance: editDistance(name.slice(0, 40), known) }))
    .filter(({ known, distance }) => distance <= Math.max(1, Math.floor(known.length / 3)))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ known }) => known);
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substituted = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
