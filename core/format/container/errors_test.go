package container

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a terminal takes for an order, such as the one that sets its title, is shown and not obeyed.
func TestMessagesHoldNoControlCharacters(t *testing.T) {
	const orders = "a\x1b]0;x\a\r\nb\u009b2J\u202e\xff\u00e9\U0001f600 \"c\\"
	const shown = `a\x1b]0;x\a\r\nb\u009b2J\u202e\xff` + "\u00e9\U0001f600 \"c\\"
	require.Equal(t, shown, Clip(orders))
	err := &Error{Kind: ErrMismatch, Path: "m", Tensor: "t\x1b", Field: orders, Found: orders, Expected: orders}
	require.Equal(t, `tensor is not what the caller needs: m: tensor "t\x1b": `+shown+": found "+shown+", expected "+shown, err.Error())
	require.Equal(t, strings.Repeat("a", longest-1)+`\xc3...`, Clip(strings.Repeat("a", longest-1)+"\u00e9"))
}
