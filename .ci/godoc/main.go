// Command godoc documents the Go packages of this module: `-check` counts the exported names that have a comment and lists those that
// have none, `-out DIR` writes a page of Markdown for every package, and an index.
//
// What counts are packages, types, functions, methods, constants and variables, of which a comment may be that of their group, and the
// fields and methods of public structs and interfaces: of these the comment may be that of their type, which names them, or that of their
// group, which is above it and ends with an empty line.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const module = "github.com/bitnet-rust/bitnet_rust/"

// roots hold the packages that programs may use. Programs among them, such as the writer of assembly, have no names to document.
var roots = []string{"core", "accel/cpu"}

func main() {
	check := flag.Bool("check", false, "list exported names without a comment; status 1 if there are any")
	out := flag.String("out", "", "write a page of Markdown for every package into this directory")
	flag.Parse()
	if err := run(*check, *out); err != nil {
		fmt.Fprintln(os.Stderr, "godoc:", err)
		os.Exit(1)
	}
}

func run(check bool, out string) error {
	packages, err := load(roots)
	if err != nil {
		return err
	}
	if out != "" {
		if err := write(packages, out); err != nil {
			return err
		}
	}
	if !check {
		return nil
	}
	documented, missing := 0, []string(nil)
	for _, p := range packages {
		for name, has := range p.names() {
			if has {
				documented++
			} else {
				missing = append(missing, p.path+": "+name)
			}
		}
	}
	fmt.Printf("Go      %d of %d public names of %d packages have documentation\n", documented, documented+len(missing), len(packages))
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("these have none:\n  %s", strings.Join(missing, "\n  "))
	}
	return nil
}

// A pack is a package with its comments; path is that of its directory, as "core/nn".
type pack struct {
	*doc.Package
	path string
	fset *token.FileSet
}

// load reads the packages below directories, as they are built for the processor that has all kernels: pages do not depend on the machine.
func load(roots []string) ([]pack, error) {
	context := build.Default
	context.GOOS, context.GOARCH, context.CgoEnabled = "linux", "amd64", false
	var packages []pack
	for _, root := range roots {
		err := filepath.WalkDir(root, func(dir string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			if entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			built, err := context.ImportDir(dir, 0)
			if _, none := err.(*build.NoGoError); none || built.Name == "main" {
				return nil
			} else if err != nil {
				return err
			}
			p := pack{path: filepath.ToSlash(dir), fset: token.NewFileSet()}
			var files []*ast.File
			for _, name := range slices.Concat(built.GoFiles, built.TestGoFiles, built.XTestGoFiles) {
				file, err := parser.ParseFile(p.fset, filepath.Join(dir, name), nil, parser.ParseComments)
				if err != nil {
					return err
				}
				files = append(files, file)
			}
			if p.Package, err = doc.NewFromFiles(p.fset, files, module+p.path); err != nil {
				return err
			}
			packages = append(packages, p)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// names has every public name of the package, and whether it has a comment.
func (p pack) names() map[string]bool {
	names := map[string]bool{"package " + p.Name: p.Doc != ""}
	values := func(groups []*doc.Value) {
		for _, group := range groups {
			for _, spec := range group.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				for _, name := range spec.Names {
					if name.IsExported() {
						names[name.Name] = group.Doc != "" || spec.Doc.Text() != "" || spec.Comment.Text() != ""
					}
				}
			}
		}
	}
	functions := func(functions []*doc.Func) {
		for _, f := range functions {
			name := f.Name
			if f.Recv != "" {
				name = "(" + f.Recv + ")." + name
			}
			names[name] = f.Doc != ""
		}
	}
	values(p.Consts)
	values(p.Vars)
	functions(p.Funcs)
	for _, t := range p.Types {
		names[t.Name] = t.Doc != ""
		p.members(t, names)
		values(t.Consts)
		values(t.Vars)
		functions(t.Funcs)
		functions(t.Methods)
	}
	return names
}

// members adds the exported fields of a struct, or the methods of an interface. Embedded ones have their documentation elsewhere.
func (p pack) members(t *doc.Type, names map[string]bool) {
	for _, spec := range t.Decl.Specs {
		switch declared := spec.(*ast.TypeSpec).Type.(type) {
		case *ast.StructType:
			p.fields(t, declared.Fields.List, names)
		case *ast.InterfaceType:
			p.fields(t, declared.Methods.List, names)
		}
	}
}

func (p pack) fields(t *doc.Type, fields []*ast.Field, names map[string]bool) {
	line := func(at token.Pos) int { return p.fset.Position(at).Line }
	above, end := false, 0 // whether there is a comment above the group, and the last line of the field before
	for _, field := range fields {
		above = field.Doc != nil || above && line(field.Pos()) == end+1
		end = line(field.End())
		for _, name := range field.Names {
			if name.IsExported() {
				told := regexp.MustCompile(`\b` + name.Name + `\b`).MatchString(t.Doc)
				names[t.Name+"."+name.Name] = told || above || field.Comment != nil
			}
		}
	}
}

func write(packages []pack, dir string) error {
	var index bytes.Buffer
	fmt.Fprint(&index, "# Go packages\n\nThe core is a Go module without cgo. These pages are made of its comments, as `go doc` shows them: "+
		"`go doc ./core/infer Scheduler`. Which package may use which is told in [architecture](../../architecture.md#the-rooms).\n\n"+
		"| package | |\n| --- | --- |\n")
	for _, p := range packages {
		synopsis := strings.TrimPrefix(p.Synopsis(p.Doc), "Package "+p.Name+" ")
		fmt.Fprintf(&index, "| [%s](%s.md) | %s |\n", p.path, p.path, strings.ReplaceAll(synopsis, "|", `\|`))
		file := filepath.Join(dir, filepath.FromSlash(p.path)+".md")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, p.page(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "index.md"), index.Bytes(), 0o644)
}

func (p pack) page() []byte {
	var page bytes.Buffer
	fmt.Fprintf(&page, "# %s\n\n```go\nimport %q\n```\n\n", p.path, p.ImportPath)
	p.text(&page, p.Doc)
	p.examples(&page, p.Examples)
	p.values(&page, p.Consts)
	p.values(&page, p.Vars)
	p.functions(&page, "##", p.Funcs)
	for _, t := range p.Types {
		fmt.Fprintf(&page, "## type %s {#%s}\n\n", t.Name, t.Name)
		p.declaration(&page, t.Decl)
		p.text(&page, t.Doc)
		p.examples(&page, t.Examples)
		p.values(&page, t.Consts)
		p.values(&page, t.Vars)
		p.functions(&page, "###", t.Funcs)
		p.functions(&page, "###", t.Methods)
	}
	return page.Bytes()
}

func (p pack) functions(page *bytes.Buffer, level string, functions []*doc.Func) {
	for _, f := range functions {
		name, anchor := f.Name, f.Name
		if f.Recv != "" {
			name, anchor = "("+f.Recv+") "+f.Name, strings.TrimPrefix(f.Recv, "*")+"."+f.Name
		}
		anchor, _, _ = strings.Cut(strings.ReplaceAll(anchor, "[T]", ""), "[")
		fmt.Fprintf(page, "%s func %s {#%s}\n\n", level, strings.ReplaceAll(name, "*", `\*`), anchor)
		p.declaration(page, f.Decl)
		p.text(page, f.Doc)
		p.examples(page, f.Examples)
	}
}

func (p pack) values(page *bytes.Buffer, groups []*doc.Value) {
	for _, group := range groups {
		for _, name := range group.Names {
			if ast.IsExported(name) {
				fmt.Fprintf(page, "<a id=%q></a>", name)
			}
		}
		page.WriteString("\n\n")
		p.declaration(page, group.Decl)
		p.text(page, group.Doc)
	}
}

var config = printer.Config{Mode: printer.UseSpaces | printer.TabIndent, Tabwidth: tabWidth}

// declaration prints code without the comment above it, which follows as text.
func (p pack) declaration(page *bytes.Buffer, node ast.Decl) {
	var code bytes.Buffer
	if err := config.Fprint(&code, p.fset, node); err != nil {
		panic(err) // it was parsed
	}
	fmt.Fprintf(page, "```go\n%s\n```\n\n", narrow(code.String()))
}

func (p pack) examples(page *bytes.Buffer, examples []*doc.Example) {
	for _, example := range examples {
		title := "Example"
		if example.Suffix != "" {
			title += ": " + strings.ReplaceAll(example.Suffix, "_", " ")
		}
		fmt.Fprintf(page, "**%s**\n\n", title)
		p.text(page, example.Doc)
		var code bytes.Buffer
		node := any(example.Code)
		if block, ok := node.(*ast.BlockStmt); ok {
			node = &printer.CommentedNode{Node: block, Comments: example.Comments}
		}
		if err := config.Fprint(&code, p.fset, node); err != nil {
			panic(err)
		}
		fmt.Fprintf(page, "```go\n%s\n```\n\n", bytes.TrimSpace(code.Bytes()))
		if example.Output != "" {
			fmt.Fprintf(page, "Output:\n\n```text\n%s\n```\n\n", strings.TrimSpace(example.Output))
		}
	}
}

// text prints a comment; its links lead to anchors of these pages.
func (p pack) text(page *bytes.Buffer, text string) {
	printer := p.Printer()
	printer.HeadingLevel = 4
	printer.HeadingID = func(*comment.Heading) string { return "" }
	printer.DocLinkURL = func(link *comment.DocLink) string {
		anchor := link.Name
		if link.Recv != "" {
			anchor = link.Recv + "." + link.Name
		}
		target := ""
		if path, ours := strings.CutPrefix(link.ImportPath, module); ours {
			target = strings.Repeat("../", strings.Count(p.path, "/")) + path + ".md"
		} else if link.ImportPath != "" {
			target = "https://pkg.go.dev/" + link.ImportPath
		}
		if anchor != "" {
			target += "#" + anchor
		}
		return target
	}
	page.Write(printer.Markdown(p.Parser().Parse(text)))
	page.WriteString("\n")
}
