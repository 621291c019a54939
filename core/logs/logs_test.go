package logs

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRecordsGoNowhereUntilAProgramSaysWhere(t *testing.T) {
	assert.False(t, Get().Enabled(context.Background(), slog.LevelError))
	var out bytes.Buffer
	Use(slog.New(slog.NewTextHandler(&out, nil)))
	defer Use(nil)
	Get().Info("model loaded", "path", "a.bitnet")
	Get().Debug("not at this level")
	assert.Contains(t, out.String(), `msg="model loaded" path=a.bitnet`)
	assert.NotContains(t, out.String(), "not at this level")
}
