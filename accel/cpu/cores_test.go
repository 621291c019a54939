package cpu

import (
	"fmt"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// machine builds a made-up root file system from path -> content.
func machine(files ...map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for _, m := range files {
		for name, text := range m {
			fs[name] = &fstest.MapFile{Data: []byte(text + "\n")}
		}
	}
	return fs
}

// smt: n CPUs of which i and i+n/2 share a core.
func smt(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		c := i % (n / 2)
		m[fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i)] = fmt.Sprintf("%d,%d", c, c+n/2)
	}
	return m
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

const (
	mountV2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
	mountV1 = "34 26 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n35 26 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
)

func v2(group string, quotas map[string]string) map[string]string {
	m := map[string]string{"proc/self/cgroup": "0::" + group, "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mountV2}
	for dir, q := range quotas {
		m["sys/fs/cgroup"+dir+"/cpu.max"] = q
	}
	return m
}

func TestPhysicalCoresOnMadeUpMachines(t *testing.T) {
	for _, c := range []struct {
		name    string
		root    fstest.MapFS
		allowed []int
		want    int
	}{
		{"nothing can be read", machine(), upTo(4), 4},
		{"no CPU is known", machine(), nil, 1},
		{"siblings count once", machine(smt(8)), upTo(8), 4},
		{"one sibling of each core is allowed", machine(smt(8)), []int{0, 1, 6}, 3},
		{"newer kernels name it core_cpus_list", machine(map[string]string{
			"sys/devices/system/cpu/cpu0/topology/core_cpus_list": "0-1",
			"sys/devices/system/cpu/cpu1/topology/core_cpus_list": "0-1",
		}), upTo(2), 1},
		{"v2 without limit", machine(v2("/a", map[string]string{"/a": "max 100000"})), upTo(8), 8},
		{"v2 with limit", machine(v2("/a", map[string]string{"/a": "200000 100000"})), upTo(8), 2},
		{"v2 part of a CPU is rounded up", machine(v2("/a", map[string]string{"/a": "150000 100000"})), upTo(8), 2},
		{"v2 less than one CPU", machine(v2("/a", map[string]string{"/a": "5000 100000"})), upTo(8), 1},
		{"v2 default period", machine(v2("/a", map[string]string{"/a": "300000"})), upTo(8), 3},
		{"v2 limit of an ancestor", machine(v2("/a/b/c", map[string]string{"/a": "300000 100000", "/a/b/c": "500000 100000"})), upTo(8), 3},
		{"v2 limit at the mount", machine(v2("/", map[string]string{"": "300000 100000"})), upTo(8), 3},
		{"v2 group outside of the namespace", machine(v2("/../x", map[string]string{"": "300000 100000"})), upTo(8), 3},
		{"v2 nonsense", machine(v2("/a", map[string]string{"/a": "many of them"})), upTo(8), 8},
		{"v2 more than the machine has", machine(v2("/a", map[string]string{"/a": "99900000 100000"})), upTo(8), 8},
		{"v1 with limit", machine(map[string]string{
			"proc/self/cgroup":    "5:memory:/m\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/",
			"proc/self/mountinfo": mountV1,
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us":  "400000",
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
		}), upTo(8), 4},
		{"v1 without limit", machine(map[string]string{
			"proc/self/cgroup":    "4:cpu,cpuacct:/docker/x",
			"proc/self/mountinfo": mountV1,
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us":  "-1",
			"sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000",
		}), upTo(8), 8},
		{"v1 container sees its own group as the root", machine(map[string]string{
			"proc/self/cgroup":    "4:cpu,cpuacct:/docker/x/inner",
			"proc/self/mountinfo": "34 26 0:30 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
			"sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us":  "100000",
			"sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us": "100000",
		}), upTo(8), 1},
		{"broken proc files", machine(map[string]string{
			"proc/self/cgroup": "x\n0::", "proc/self/mountinfo": "a b c\n1 2 3 / /m rw - \n" + mountV2,
		}), upTo(8), 8},
		{"siblings and quota", machine(smt(16), v2("/a", map[string]string{"/a": "300000 100000"})), upTo(16), 3},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, countCores(c.root, c.allowed)) })
	}
}

func TestPhysicalCoresOfThisMachine(t *testing.T) {
	require.GreaterOrEqual(t, LogicalCPUs(), PhysicalCores())
	if q := Quota(); q > 0 {
		require.LessOrEqual(t, PhysicalCores(), q)
	}
	n := PhysicalCores()
	require.GreaterOrEqual(t, n, 1)
	require.LessOrEqual(t, n, runtime.NumCPU())
}
