package model

import (
	"regexp"
	"strings"
)

// Converts reports whether the linear of the given full name ("model.layers.0.mlp.up_proj") is ternary. A pattern in
// ModulesToNotConvert excludes the modules whose name ends with it, and those whose name it matches, as a regular expression,
// from the start up to a border between modules: "model.layers.1" excludes all of that layer and nothing of layer 11. The
// rule is that of transformers 5.23. A dot stands for any character.
func (q *Quantization) Converts(module string) bool { return q.converter()(module) }

// converter is Converts for many names, with the patterns compiled once.
func (q *Quantization) converter() func(module string) bool {
	var expressions []*regexp.Regexp
	var plain []string
	for _, pattern := range q.ModulesToNotConvert {
		if plainPattern(pattern) {
			plain = append(plain, pattern)
		} else if re, err := compilePattern(pattern); err == nil {
			expressions = append(expressions, re)
		}
	}
	return func(module string) bool {
		for _, pattern := range q.ModulesToNotConvert {
			if strings.HasSuffix(module, pattern) {
				return false
			}
		}
		for _, pattern := range plain {
			if startsWith(module, pattern) && onBorder(module, len(pattern)) {
				return false
			}
		}
		for _, re := range expressions {
			for end := range len(module) + 1 {
				if onBorder(module, end) && re.MatchString(module[:end]) {
					return false
				}
			}
		}
		return true
	}
}

// compilePattern compiles a pattern that matches whole strings.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	return regexp.Compile("^(?:" + pattern + ")$")
}

// onBorder says whether position end of a name, 0 to its length, lies between two modules or at the end.
func onBorder(name string, end int) bool {
	return end == len(name) || name[end] == '.' || end > 0 && name[end-1] == '.'
}

// plainPattern says whether the dot is the only character of a pattern that means something in a regular expression.
func plainPattern(pattern string) bool { return !strings.ContainsAny(pattern, `\+*?()|[]{}^$`) }

// startsWith matches a plain pattern against the start of a name.
func startsWith(name, pattern string) bool {
	if len(pattern) > len(name) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != '.' && pattern[i] != name[i] {
			return false
		}
	}
	return true
}
