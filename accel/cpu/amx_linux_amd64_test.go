package cpu

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A process with this variable lets the system refuse it the tile registers, and starts anew.
const refuseEnv = "BITNET_CPU_TEST_REFUSE_TILES"

func init() {
	if os.Getenv(refuseEnv) == "" {
		return
	}
	_ = os.Unsetenv(refuseEnv)
	runtime.LockOSThread() // filters are a thread's, and exec keeps those of the thread that calls it
	if err := refuseTiles(); err != nil {
		panic(err)
	}
	panic(syscall.Exec(os.Args[0], os.Args, os.Environ()))
}

// refuseTiles makes arch_prctl(ARCH_REQ_XCOMP_PERM, ...) fail, as containers do whose seccomp profile does not know it.
func refuseTiles() error {
	const nr, firstArgument = 0, 16 // offsets in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_ARCH_PRCTL, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: firstArgument},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x1023, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func TestWithoutThePermissionForTilesTheNextBestInstructionsAreUsed(t *testing.T) {
	rest := slices.DeleteFunc(slices.Clone(Supported()), func(isa ISA) bool { return isa == AMX })
	if len(rest) == len(Supported()) {
		t.Skip("needs AMX")
	}
	child := func(env ...string) string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), append(env, childEnv+"=1", "BITNET_NUM_THREADS=1")...)
		out, err := cmd.Output()
		require.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, "isa=amx threads=1 err=<nil>", child("BITNET_ISA=amx"))
	next := fmt.Sprintf("isa=%s threads=1 err=", rest[len(rest)-1])
	require.Equal(t, next+"<nil>", child("BITNET_ISA=", refuseEnv+"=1"))
	require.Equal(t, fmt.Sprintf(`%scpu: environment variable BITNET_ISA="amx" cannot be used: accepted are %s`, next, joinISAs(rest)),
		child("BITNET_ISA=amx", refuseEnv+"=1"))
}
