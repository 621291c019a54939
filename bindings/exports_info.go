//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"encoding/json"
	"runtime"
)

// version is the distribution's version, set by setup.py through -ldflags -X.
var version = "0+unknown"

//export bn_version
func bn_version() *C.char { return C.CString(version) }

//export bn_build_info
func bn_build_info(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		return jsonOut(out, map[string]any{
			"version":    version,
			"go_version": runtime.Version(),
			"os":         runtime.GOOS,
			"arch":       runtime.GOARCH,
		})
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
