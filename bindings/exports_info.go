//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// version is the distribution's version, set by setup.py through -ldflags -X.
var version = "0+unknown"

//export bn_version
func bn_version() *C.char { return C.CString(version) }

//export bn_build_info
func bn_build_info(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		refused := []string{} // what is wrong with the environment, which loading a model reports, too
		block, poolErr := pool.Default().Alloc(0, "build_info")
		if block != nil {
			block.Release()
		}
		for _, err := range []error{cpu.InitError(), poolErr} {
			if err != nil {
				refused = append(refused, err.Error())
			}
		}
		refusals := map[string]string{} // instruction sets that the processor has and the system does not give
		for _, r := range cpu.Refused() {
			refusals[r.ISA.String()] = r.Reason
		}
		supported := []string{}
		for _, isa := range cpu.Supported() {
			supported = append(supported, isa.String())
		}
		return jsonOut(out, map[string]any{
			"version":            version,
			"go_version":         runtime.Version(),
			"os":                 runtime.GOOS,
			"arch":               runtime.GOARCH,
			"isa":                cpu.Active().String(),
			"supported_isas":     supported,
			"refused_isas":       refusals,
			"features":           cpu.Features(),
			"threads":            cpu.NumThreads(),
			"physical_cores":     cpu.PhysicalCores(),
			"logical_cpus":       cpu.LogicalCPUs(),
			"cpu_quota":          cpu.Quota(),
			"skip_zeros":         cpu.SkipZeros(),
			"pool_debug":         pool.Default().Debug(),
			"memory_budget":      pool.Default().Stats().Budget,
			"environment_errors": refused,
		})
	})
}

//export bn_num_threads
func bn_num_threads(out *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		*out = C.int64_t(cpu.NumThreads())
		return nil
	})
}

//export bn_set_num_threads
func bn_set_num_threads(n C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error { return cpu.SetNumThreads(int(n)) })
}

//export bn_set_isa
func bn_set_isa(name *C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		isa, err := cpu.ParseISA(C.GoString(name))
		if err != nil {
			return fmt.Errorf("%w: isa: %w", errArgument, err)
		}
		if err := cpu.SetISA(isa); err != nil {
			return fmt.Errorf("%w: isa: %w", errArgument, err)
		}
		return nil
	})
}

//export bn_set_skip_zeros
func bn_set_skip_zeros(on C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		cpu.SetSkipZeros(on != 0)
		return nil
	})
}

// bn_read_bandwidth measures how fast threads read memory, in GB/s.
//
//export bn_read_bandwidth
func bn_read_bandwidth(threads, bytes C.int64_t, seconds C.double, out *C.double, errOut **C.char) C.int {
	return guard(errOut, func() error {
		if threads < 1 || threads > cpu.MaxThreads || bytes < 1 || !(seconds > 0 && seconds <= 60) {
			return fmt.Errorf("%w: read_bandwidth(%d, %d, %g): expected 1 to %d threads, at least one byte and at most 60 seconds",
				errArgument, threads, bytes, seconds, cpu.MaxThreads)
		}
		*out = C.double(cpu.ReadBandwidth(int(threads), int(bytes), time.Duration(float64(seconds)*float64(time.Second))))
		return nil
	})
}

// config is the config of a model as Python sees it: by both names of a field that has two.
type config model.Config

// MarshalJSON is AllNames.
func (c config) MarshalJSON() ([]byte, error) { return model.Config(c).AllNames() }

// preset is a registered model as Python sees it.
type preset struct {
	Name       string   `json:"name"`
	Aliases    []string `json:"aliases"`
	HubID      string   `json:"hub_id"`
	Parameters int64    `json:"parameters"`
	Bytes      int64    `json:"bytes"` // of the weights in memory, with an int8 head
	Config     config   `json:"config"`
}

func presetOut(p model.Preset) preset {
	return preset{p.Name, append([]string{}, p.Aliases...), p.HubID, p.Parameters, p.Config.WeightBytes(cpu.DenseInt8), config(p.Config)}
}

//export bn_presets
func bn_presets(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		list := []preset{}
		for _, p := range model.Presets() {
			list = append(list, presetOut(p))
		}
		return jsonOut(out, list)
	})
}

//export bn_find_preset
func bn_find_preset(name *C.char, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		p, err := model.Find(C.GoString(name))
		if err != nil {
			return err
		}
		return jsonOut(out, presetOut(p))
	})
}

//export bn_register_preset
func bn_register_preset(name, hubID, config *C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		c, err := model.ParseConfig([]byte(C.GoString(config)), "")
		if err != nil {
			return err
		}
		return model.RegisterPreset(model.Preset{Name: C.GoString(name), HubID: C.GoString(hubID), Config: *c})
	})
}

// A config from a file (path not empty) or from a JSON text, validated, in
// Hugging Face's spelling.
//
//export bn_config
func bn_config(path, text *C.char, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		var c *model.Config
		var err error
		if name := C.GoString(path); name != "" {
			c, err = model.LoadConfig(name)
		} else {
			c, err = model.ParseConfig([]byte(C.GoString(text)), "")
		}
		if err != nil {
			return err
		}
		return jsonOut(out, config(*c))
	})
}

// bn_inspect lists what is in the files of a model, with statistics of every tensor if stats is not 0.
//
//export bn_inspect
func bn_inspect(path *C.char, stats C.int, i2sLayout *C.char, poll C.bn_poll, state unsafe.Pointer, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		name, layout, calls := C.GoString(path), C.GoString(i2sLayout), newInterrupts(poll, state)
		var info *model.FileInfo
		err := calls.await(func(ctx context.Context) (err error) {
			info, err = model.Inspect(ctx, name, stats != 0, layout, calls.progress)
			return err
		})
		if err != nil {
			return err
		}
		return jsonOut(out, info)
	})
}

// bn_verify reads the files of a model and says what is wrong with them; options are those of loading.
//
//export bn_verify
func bn_verify(path, options *C.char, poll C.bn_poll, state unsafe.Pointer, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o, _, err := parseLoadOptions(options)
		if err != nil {
			return err
		}
		name, calls := C.GoString(path), newInterrupts(poll, state)
		var found *model.Verification
		err = calls.await(func(ctx context.Context) (err error) {
			found, err = model.Verify(ctx, name, o, calls.progress)
			return err
		})
		if err != nil {
			return err
		}
		return jsonOut(out, found)
	})
}

// bn_tensor_bytes gives bytes of a tensor in a model's files, as a JSON string in base64.
//
//export bn_tensor_bytes
func bn_tensor_bytes(path, name *C.char, at, n C.int64_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		data, err := model.RawTensor(C.GoString(path), C.GoString(name), int(at), int(n))
		if err != nil {
			return err
		}
		return jsonOut(out, data)
	})
}

// bn_yaml gives the content of a YAML file, whose text this is, as JSON; name is for errors.
//
//export bn_yaml
func bn_yaml(text, name *C.char, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		content, err := model.YAMLToJSON([]byte(C.GoString(text)), C.GoString(name))
		if err != nil {
			return err
		}
		*out = C.CString(string(content))
		return nil
	})
}

// jsonOut hands v to C as a JSON text that C frees.
func jsonOut(out **C.char, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	*out = C.CString(string(text))
	return nil
}
