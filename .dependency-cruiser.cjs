// The layers of ARCHITECTURE.md as rules: imports point downwards only, worlds do not meet,
// and the core neither imports Node nor a package.

// From the ground up; a room may import rooms of earlier rows, never of later ones.
const rows = [
  ["units.ts", "errors.ts", "errno.ts", "meter.ts", "range.ts", "random.ts"],
  ["wire"],
  ["memory"],
  ["iommu"],
  ["pci", "block"],
  ["dma", "virtio", "nvme", "vfio", "firmware", "topology"],
  ["recording", "sim", "live", "host"],
  ["report", "config"],
  ["cli"],
];
const pathOf = (name) =>
  name.endsWith(".ts") ? `^src/${name.replace(".", "\\.")}$` : `^src/${name}/`;
const tests = "\\.(test|suite|fuzz)\\.ts$";
const worldsAt = rows.findIndex((row) => row.includes("live"));
const core = [...rows.slice(0, worldsAt).flat(), "recording", "sim"];

const upward = rows.slice(0, -1).map((row, index) => ({
  name: `row-${index}-imports-downwards`,
  severity: "error",
  from: { path: row.map(pathOf), pathNot: tests },
  to: {
    path: rows
      .slice(index + 1)
      .flat()
      .map(pathOf),
  },
}));
const worlds = rows[worldsAt].map((world) => ({
  name: `world-${world}-keeps-to-itself`,
  severity: "error",
  from: { path: pathOf(world), pathNot: tests },
  to: { path: rows[worldsAt].filter((other) => other !== world).map(pathOf) },
}));

module.exports = {
  forbidden: [
    ...upward,
    ...worlds,
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "core-is-pure",
      comment: "The core runs in a browser: no Node module and no package.",
      severity: "error",
      from: { path: core.map(pathOf), pathNot: [tests, "^src/recording/node/"] },
      to: { dependencyTypes: ["core", "npm", "npm-dev", "npm-no-pkg", "npm-optional", "npm-peer"] },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { extensions: [".ts"] },
  },
};
