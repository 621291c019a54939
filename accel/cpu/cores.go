package cpu

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// countCores is the number of physical cores that the allowed logical CPUs cover, limited by the CPU quota of the
// control group. root is the root of the file system ("/" of the machine, or a made-up one in tests). Whatever
// cannot be read counts as "no limit", and the result is at least 1.
func countCores(root fs.FS, allowed []int) int {
	n := distinctCores(root, allowed)
	if q := cpuQuota(root); q > 0 {
		n = min(n, q)
	}
	return max(n, 1)
}

// distinctCores counts SMT siblings once: CPUs with the same thread_siblings_list are one core.
func distinctCores(root fs.FS, allowed []int) int {
	seen := make(map[string]bool, len(allowed))
	for _, c := range allowed {
		dir := "sys/devices/system/cpu/cpu" + strconv.Itoa(c) + "/topology/"
		key := readLine(root, dir+"thread_siblings_list")
		if key == "" {
			key = readLine(root, dir+"core_cpus_list")
		}
		if key == "" { // no topology: every CPU is a core
			key = strconv.Itoa(c)
		}
		seen[key] = true
	}
	return len(seen)
}

// cpuQuota is the CPU time limit of this process's control groups in whole CPUs, rounded up; 0 when there is none.
// A limit may sit on any ancestor, so the smallest one on the way up to the mount point counts.
func cpuQuota(root fs.FS) int {
	best := 0
	for _, g := range cpuGroups(root) {
		for dir := g.dir; ; dir = path.Dir(dir) {
			q := 0
			if g.v2 {
				q = quotaV2(readLine(root, path.Join(dir, "cpu.max")))
			} else {
				q = quotaCPUs(readLine(root, path.Join(dir, "cpu.cfs_quota_us")), readLine(root, path.Join(dir, "cpu.cfs_period_us")))
			}
			if q > 0 && (best == 0 || q < best) {
				best = q
			}
			if dir == g.mount || dir == "." {
				break
			}
		}
	}
	return best
}

// quotaV2 reads cpu.max: "max 100000" or "150000 100000" (microseconds of CPU time per period).
func quotaV2(line string) int {
	f := strings.Fields(line)
	if len(f) == 0 || f[0] == "max" {
		return 0
	}
	period := "100000"
	if len(f) > 1 {
		period = f[1]
	}
	return quotaCPUs(f[0], period)
}

func quotaCPUs(quota, period string) int {
	q, err1 := strconv.ParseInt(quota, 10, 64)
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0
	}
	n := q / p
	if q%p != 0 {
		n++
	}
	return int(min(n, MaxThreads))
}

// cpuGroup is this process's control group in one hierarchy: dir lies at or below mount; both relative to the root.
type cpuGroup struct {
	mount, dir string
	v2         bool
}

// cpuGroups finds the hierarchies that can limit CPU time: the unified one (v2) and the one with the cpu controller (v1).
// /proc/self/cgroup gives the group's path, /proc/self/mountinfo where (and from which subtree) the hierarchy is mounted.
func cpuGroups(root fs.FS) []cpuGroup {
	mounts := cgroupMounts(root)
	var groups []cpuGroup
	for _, line := range readLines(root, "proc/self/cgroup") {
		f := strings.SplitN(line, ":", 3) // id:controllers:path
		if len(f) != 3 {
			continue
		}
		v2 := f[0] == "0" && f[1] == ""
		if !v2 && !hasItem(f[1], "cpu") {
			continue
		}
		for _, m := range mounts {
			if m.v2 == v2 {
				groups = append(groups, cpuGroup{mount: m.dir, dir: path.Join(m.dir, below(m.root, f[2])), v2: v2})
			}
		}
	}
	return groups
}

type cgroupMount struct {
	dir, root string // mount point without the leading slash; the subtree that is mounted there
	v2        bool
}

func cgroupMounts(root fs.FS) []cgroupMount {
	var mounts []cgroupMount
	for _, line := range readLines(root, "proc/self/mountinfo") {
		// 36 25 0:32 /subtree /mount/point rw,... - cgroup2 cgroup rw,nsdelegate
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		m := cgroupMount{dir: strings.TrimPrefix(path.Clean(l[4]), "/"), root: l[3]}
		switch {
		case r[0] == "cgroup2":
			m.v2 = true
		case r[0] == "cgroup" && hasItem(r[2], "cpu"):
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// below is the part of group below subtree, or "" when group lies outside of it (a container sees its own group as the
// mount's root then).
func below(subtree, group string) string {
	subtree = strings.TrimSuffix(subtree, "/")
	rest, ok := strings.CutPrefix(group, subtree)
	if !ok || rest != "" && rest[0] != '/' || hasDotDot(rest) {
		return ""
	}
	return rest
}

func hasDotDot(p string) bool {
	for _, s := range strings.Split(p, "/") {
		if s == ".." {
			return true
		}
	}
	return false
}

func hasItem(list, item string) bool {
	for _, s := range strings.Split(list, ",") {
		if s == item {
			return true
		}
	}
	return false
}

func readLines(root fs.FS, name string) []string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func readLine(root fs.FS, name string) string {
	if lines := readLines(root, name); len(lines) > 0 {
		return strings.TrimSpace(lines[0])
	}
	return ""
}
