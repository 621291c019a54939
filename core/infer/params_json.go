package infer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// paramFields decodes each JSON field. The error of a decoder says what was expected; inField adds the field and the value.
var paramFields = map[string]func(*SamplingParams, json.RawMessage) error{
	"max_new_tokens":           func(p *SamplingParams, raw json.RawMessage) error { return decodeInt(&p.MaxNewTokens, raw) },
	"temperature":              func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.Temperature, raw) },
	"top_k":                    func(p *SamplingParams, raw json.RawMessage) error { return decodeInt(&p.TopK, raw) },
	"top_p":                    func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.TopP, raw) },
	"min_p":                    func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.MinP, raw) },
	"typical_p":                func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.TypicalP, raw) },
	"repetition_penalty":       func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.RepetitionPenalty, raw) },
	"presence_penalty":         func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.PresencePenalty, raw) },
	"frequency_penalty":        func(p *SamplingParams, raw json.RawMessage) error { return decodeFloat(&p.FrequencyPenalty, raw) },
	"logit_bias":               func(p *SamplingParams, raw json.RawMessage) error { return p.LogitBias.decode(raw) },
	"seed":                     func(p *SamplingParams, raw json.RawMessage) error { return decodeSeed(&p.Seed, raw) },
	"stop_token_ids":           func(p *SamplingParams, raw json.RawMessage) error { return decodeIDs(&p.StopTokenIDs, raw) },
	"ignore_eos":               func(p *SamplingParams, raw json.RawMessage) error { return decodeBool(&p.IgnoreEOS, raw) },
	"prompt_lookup_num_tokens": func(p *SamplingParams, raw json.RawMessage) error { return decodeInt(&p.PromptLookup, raw) },
	"logprobs":                 func(p *SamplingParams, raw json.RawMessage) error { return decodeInt(&p.Logprobs, raw) },
}

// UnmarshalJSON reads one JSON object. Fields that are missing or null take the values of DefaultSamplingParams; an unknown or repeated field, a
// value of the wrong type and anything after the object are *ArgumentErrors. It does not check ranges: Validate does.
// ParseSamplingParams also reads the bare words NaN, Infinity and -Infinity that Python's json module writes.
func (p *SamplingParams) UnmarshalJSON(data []byte) error {
	*p = DefaultSamplingParams()
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return &ArgumentError{"sampling parameters", excerpt(data), "expected a JSON object"}
	}
	seen := make(map[string]bool, len(paramFields))
	for dec.More() {
		name, raw, err := nextField(dec)
		if err != nil {
			return malformed(err)
		}
		decode, known := paramFields[name]
		switch {
		case !known:
			return &ArgumentError{name, excerpt(raw), "unknown sampling parameter; expected one of " +
				strings.Join(slices.Sorted(maps.Keys(paramFields)), ", ")}
		case seen[name]:
			return &ArgumentError{name, excerpt(raw), "given twice"}
		}
		seen[name] = true
		if string(raw) == "null" {
			continue
		}
		if err := decode(p, raw); err != nil {
			return inField(name, raw, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &ArgumentError{"sampling parameters", excerpt(data), "expected one JSON object and nothing after it"}
	}
	return nil
}

// ParseSamplingParams reads one JSON object as UnmarshalJSON does and checks it for a model with vocab tokens as Validate does.
func ParseSamplingParams(data []byte, vocab int) (SamplingParams, error) {
	var p SamplingParams
	if err := p.UnmarshalJSON(quoteNonFinite(data)); err != nil {
		return SamplingParams{}, err
	}
	if err := p.Validate(vocab); err != nil {
		return SamplingParams{}, err
	}
	return p, nil
}

// MarshalJSON writes {"id": bias} with ascending ids. JSON has no infinity, so a ban is the string "-Infinity", which
// UnmarshalJSON of SamplingParams reads.
func (b LogitBias) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, id := range b.ids() {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendQuote(out, strconv.Itoa(int(id)))
		out = append(out, ':')
		switch v := float64(b[id]); {
		case math.IsInf(v, -1):
			out = append(out, `"-Infinity"`...)
		case math.IsInf(v, 1) || math.IsNaN(v):
			return nil, &ArgumentError{fmt.Sprintf("logit_bias[%q]", fmt.Sprint(id)), v, "cannot be written as JSON"}
		default:
			out = strconv.AppendFloat(out, v, 'g', -1, 32)
		}
	}
	return append(out, '}'), nil
}

// decode replaces b by the object {"id": number}.
func (b *LogitBias) decode(raw json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errors.New(`expected an object {"token id": number}`)
	}
	*b = make(LogitBias)
	for dec.More() {
		key, value, err := nextField(dec)
		if err != nil {
			return err
		}
		field := fmt.Sprintf("logit_bias[%q]", key)
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			return &ArgumentError{field, excerpt(value), "expected a token id as key"}
		}
		if _, twice := (*b)[int32(id)]; twice {
			return &ArgumentError{field, excerpt(value), "given twice"}
		}
		var v float64
		if err := decodeFloat(&v, value); err != nil {
			return inField(field, value, err)
		}
		(*b)[int32(id)] = float32(v)
	}
	return nil
}

func decodeFloat(dst *float64, raw json.RawMessage) error {
	switch string(raw) {
	case `"NaN"`:
		*dst = math.NaN()
		return nil
	case `"Infinity"`:
		*dst = math.Inf(1)
		return nil
	case `"-Infinity"`:
		*dst = math.Inf(-1)
		return nil
	}
	if json.Unmarshal(raw, dst) != nil {
		return errors.New("expected a number")
	}
	return nil
}

func decodeInt(dst *int, raw json.RawMessage) error {
	v, err := strconv.ParseInt(string(raw), 10, strconv.IntSize)
	if err != nil {
		return errors.New("expected an integer")
	}
	*dst = int(v)
	return nil
}

func decodeSeed(dst **uint64, raw json.RawMessage) error {
	v, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return errors.New("expected an integer in [0, 2^64)")
	}
	*dst = &v
	return nil
}

func decodeBool(dst *bool, raw json.RawMessage) error {
	if json.Unmarshal(raw, dst) != nil {
		return errors.New("expected true or false")
	}
	return nil
}

func decodeIDs(dst *[]int32, raw json.RawMessage) error {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return errors.New("expected a list of token ids")
	}
	*dst = make([]int32, len(items))
	for i, item := range items {
		v, err := strconv.ParseInt(string(item), 10, 32)
		if err != nil {
			return &ArgumentError{fmt.Sprintf("stop_token_ids[%d]", i), excerpt(item), "expected a token id"}
		}
		(*dst)[i] = int32(v)
	}
	return nil
}

// nextField reads a key and its value, undecoded.
func nextField(dec *json.Decoder) (name string, raw json.RawMessage, err error) {
	key, err := dec.Token()
	if err != nil {
		return "", nil, err
	}
	if err := dec.Decode(&raw); err != nil {
		return "", nil, err
	}
	return key.(string), raw, nil // inside an object, the decoder gives no other keys than strings
}

// inField names the field of an error that does not yet name one.
func inField(name string, raw json.RawMessage, err error) error {
	var arg *ArgumentError
	if errors.As(err, &arg) {
		return err
	}
	return &ArgumentError{name, excerpt(raw), err.Error()}
}

func malformed(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &ArgumentError{"sampling parameters", err, "expected valid JSON"}
}

// excerpt keeps error messages short when a value is not.
func excerpt(raw []byte) string {
	const limit = 80
	if len(raw) <= limit {
		return string(raw)
	}
	return strings.ToValidUTF8(string(raw[:limit]), "") + "..."
}

// quoteNonFinite puts quotes around NaN, Infinity and -Infinity outside strings, so that encoding/json can read what Python's json module writes.
func quoteNonFinite(data []byte) []byte {
	if !bytes.Contains(data, []byte("NaN")) && !bytes.Contains(data, []byte("Infinity")) {
		return data
	}
	out := make([]byte, 0, len(data)+8)
	inString := false
	for i := 0; i < len(data); {
		if word := nonFiniteAt(data[i:]); word != "" && !inString {
			out = strconv.AppendQuote(out, word)
			i += len(word)
			continue
		}
		if inString && data[i] == '\\' && i+1 < len(data) {
			out = append(out, data[i], data[i+1])
			i += 2
			continue
		}
		if data[i] == '"' {
			inString = !inString
		}
		out = append(out, data[i])
		i++
	}
	return out
}

func nonFiniteAt(data []byte) string {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(data, []byte(word)) {
			return word
		}
	}
	return ""
}
