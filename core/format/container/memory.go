package container

// Memory is a Set of tensors that lie in memory, under a name used in errors. Views alias the tensors' data.
type Memory struct {
	name    string
	file    *File
	tensors []Info
	views   map[string]View
}

// NewMemory makes a set of tensors; of two with one name the later counts. Their Data is little-endian, row-major, and of the size that
// shape and dtype ask for.
func NewMemory(name string, tensors []View) *Memory {
	m := &Memory{name: name, file: OpenBytes(name, nil), views: make(map[string]View, len(tensors))}
	for _, t := range tensors {
		t.File = m.file
		m.views[t.Name] = t
		m.tensors = append(m.tensors, Info{Name: t.Name, DType: t.DType, Shape: t.Shape, Path: name, Size: int64(len(t.Data))})
	}
	return m
}

// Tensors lists the tensors in the order in which they were given.
func (m *Memory) Tensors() []Info { return m.tensors }

// Tensor returns a view, or an Error of kind ErrTensorMissing.
func (m *Memory) Tensor(name string) (View, error) {
	v, ok := m.views[name]
	if !ok {
		return View{}, &Error{Kind: ErrTensorMissing, Path: m.name, Tensor: name}
	}
	return v, nil
}

// Has says whether there is a tensor of that name.
func (m *Memory) Has(name string) bool {
	_, ok := m.views[name]
	return ok
}

// Path is the name of the set.
func (m *Memory) Path() string { return m.name }

// Close does nothing: the tensors are their owners'.
func (*Memory) Close() error { return nil }

var _ Set = (*Memory)(nil)
