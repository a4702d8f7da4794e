package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// awake is what the mutated package gets: which of its mutants is on.
const awake = `package %s

import (
	"os"
	"strconv"
)

var mutantAwake = func() int { n, _ := strconv.Atoi(os.Getenv("MUTANT")); return n }()

func mutant(n int) bool { return mutantAwake == n }

func mutantZero[T any](n int, v T) T {
	if mutant(n) {
		return *new(T)
	}
	return v
}
`

// mutate writes a package's files with all their mutants into dir. It gives the mutants
// by name, the first of which is number 1, and what the compiler has to read instead of
// what.
func mutate(root, pkg, dir string) (mutants []string, overlay map[string]string, err error) {
	loaded, err := packages.Load(&packages.Config{Dir: root, Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax |
		packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedExportFile}, "./"+pkg)
	if err != nil {
		return nil, nil, err
	}
	p := loaded[0]
	if len(p.Errors) > 0 {
		return nil, nil, p.Errors[0]
	}
	overlay = map[string]string{}
	m := &mutator{info: p.TypesInfo, fset: p.Fset, seen: map[string]int{}}
	for _, file := range p.Syntax {
		name := p.Fset.Position(file.Pos()).Filename
		if m.src, err = os.ReadFile(name); err != nil {
			return nil, nil, err
		}
		m.file, m.inserts = filepath.Base(pkg)+"/"+filepath.Base(name), nil
		m.walk(file)
		changed := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(changed, m.render(), 0o600); err != nil {
			return nil, nil, err
		}
		overlay[name] = changed
	}
	switched := filepath.Join(dir, "mutant_awake.go")
	if err := os.WriteFile(switched, fmt.Appendf(nil, awake, p.Name), 0o600); err != nil {
		return nil, nil, err
	}
	overlay[filepath.Join(root, pkg, "mutant_awake.go")] = switched
	return m.mutants, overlay, nil
}

// An insert is text that is put into a file. What wraps an expression never replaces it,
// so that what is within can be wrapped as well; the mutant itself is a copy of the
// source, since only one is awake at a time.
type insert struct {
	at    int
	order int // of those at one place: closing ones first, the innermost first of them
	turn  int // of those that wrap the same: the later one is within
	text  string
}

type mutator struct {
	info    *types.Info
	fset    *token.FileSet
	src     []byte
	file    string
	fn      string
	results []string // the types of the function's results
	inserts []insert
	mutants []string
	seen    map[string]int
}

func (m *mutator) offset(p token.Pos) int { return m.fset.Position(p).Offset }

func (m *mutator) text(n ast.Node) string { return string(m.src[m.offset(n.Pos()):m.offset(n.End())]) }

// add names a mutant and gives its number. The name has no line, which moves.
func (m *mutator) add(from, to string) int {
	name := m.file + " " + m.fn + ": " + strings.Join(strings.Fields(from), " ") + " => " + to
	if m.seen[name]++; m.seen[name] > 1 {
		name += fmt.Sprintf(" (%d)", m.seen[name])
	}
	m.mutants = append(m.mutants, name)
	return len(m.mutants)
}

// wrap puts text before and behind a node.
func (m *mutator) wrap(n ast.Node, before, behind string) {
	from, to := m.offset(n.Pos()), m.offset(n.End())
	size := to - from
	turn := len(m.inserts)
	m.inserts = append(m.inserts, insert{from, 1<<30 - size, turn, before}, insert{to, size - 1<<30, -turn, behind})
}

func (m *mutator) render() []byte {
	slices.SortStableFunc(m.inserts, func(a, b insert) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return cmp.Or(a.order-b.order, a.turn-b.turn)
	})
	var out []byte
	last := 0
	for _, i := range m.inserts {
		out = append(append(out, m.src[last:i.at]...), i.text...)
		last = i.at
	}
	return append(out, m.src[last:]...)
}

// walk mutates a file, function by function, and the tables at its top.
func (m *mutator) walk(file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			m.fn = d.Name.Name
			m.function(d.Type, d.Body)
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				v := s.(*ast.ValueSpec)
				m.fn, m.results = v.Names[0].Name, nil
				for _, x := range v.Values {
					m.inspect(x)
				}
			}
		}
	}
}

func (m *mutator) function(t *ast.FuncType, body *ast.BlockStmt) {
	if body == nil {
		return
	}
	was := m.results
	m.results = nil
	if t.Results != nil {
		for _, f := range t.Results.List {
			for range max(1, len(f.Names)) {
				m.results = append(m.results, m.text(f.Type))
			}
		}
	}
	m.inspect(body)
	m.results = was
}

func (m *mutator) inspect(n ast.Node) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			m.function(n.Type, n.Body)
			return false
		case *ast.BlockStmt:
			m.statements(n.List)
		case *ast.CaseClause:
			m.statements(n.Body)
			if len(n.List) > 0 && m.isBool(n.List[0]) {
				for _, x := range n.List {
					m.condition(x)
				}
			}
		case *ast.IfStmt:
			m.condition(n.Cond)
		case *ast.BinaryExpr:
			m.binary(n)
		case *ast.CompositeLit:
			m.literal(n)
		}
		return true
	})
}

func (m *mutator) isBool(x ast.Expr) bool {
	t := m.info.TypeOf(x)
	if t == nil {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsBoolean != 0
}

// condition turns into its opposite what binary leaves alone.
func (m *mutator) condition(x ast.Expr) {
	if _, ok := x.(*ast.BinaryExpr); ok || m.info.Types[x].Value != nil {
		return
	}
	n := m.add(m.text(x), "not")
	m.wrap(x, fmt.Sprintf("func() bool { if mutant(%d) { return !(%s) }; return ", n, m.text(x)), " }()")
}

var opposite = map[token.Token]string{token.EQL: "!=", token.NEQ: "==", token.LSS: ">=", token.GEQ: "<", token.GTR: "<=", token.LEQ: ">"}

var boundary = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}

var sums = map[token.Token]string{token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*", token.REM: "*"}

func (m *mutator) binary(x *ast.BinaryExpr) {
	if m.info.Types[x].Value != nil {
		return // a constant
	}
	left, right := m.text(x.X), m.text(x.Y)
	kind := "bool"
	var to []string
	switch {
	case x.Op == token.LAND || x.Op == token.LOR:
		for _, side := range []string{left, right} {
			if other := strings.Replace(left+right, side, "", 1); other != "err != nil" && other != "!ok" {
				to = append(to, side)
			}
		}
	case opposite[x.Op] != "":
		to = []string{left + " " + opposite[x.Op] + " " + right}
		if b := boundary[x.Op]; b != "" {
			to = append(to, left+" "+b+" "+right)
		}
	case sums[x.Op] != "":
		t, ok := m.info.TypeOf(x).(*types.Basic)
		if !ok || t.Info()&types.IsNumeric == 0 || t.Info()&types.IsUntyped != 0 {
			return
		}
		kind, to = t.Name(), []string{left + " " + sums[x.Op] + " " + right}
	default:
		return
	}
	before := "func() " + kind + " { "
	for _, s := range to {
		before += fmt.Sprintf("if mutant(%d) { return %s }; ", m.add(m.text(x), strings.Join(strings.Fields(s), " ")), s)
	}
	m.wrap(x, before+"return ", " }()")
}

// literal leaves out fields of structs and entries of tables.
func (m *mutator) literal(l *ast.CompositeLit) {
	t := m.info.TypeOf(l)
	if t == nil {
		return
	}
	switch t.Underlying().(type) {
	case *types.Struct, *types.Map:
	default:
		return
	}
	for _, e := range l.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok || zero(kv.Value) {
			continue
		}
		tv := m.info.Types[kv.Value]
		if lit, ok := kv.Value.(*ast.CompositeLit); tv.Type == nil || ok && lit.Type == nil {
			continue
		}
		of := ""
		if tv.Value != nil {
			b, ok := tv.Type.(*types.Basic)
			switch {
			case ok && b.Info()&types.IsUntyped == 0:
				of = "[" + b.Name() + "]"
			case ok:
				continue
			}
		}
		n := m.add(m.text(kv), "left out")
		m.wrap(kv.Value, fmt.Sprintf("mutantZero%s(%d, ", of, n), ")")
	}
}

// isEmpty says whether an expression is a constant that is empty.
func (m *mutator) isEmpty(x ast.Expr) bool {
	v := m.info.Types[x].Value
	return v != nil && (v.String() == `""` || v.String() == "0")
}

// zero says whether an expression is a zero value anyway.
func zero(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "nil" || x.Name == "false"
	case *ast.BasicLit:
		return x.Value == "0" || x.Value == `""`
	case *ast.CompositeLit:
		return len(x.Elts) == 0
	}
	return false
}

// statements leaves out what has an effect, and what is returned.
func (m *mutator) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				m.leaveOut(s)
			}
		case *ast.ExprStmt, *ast.IncDecStmt:
			m.leaveOut(s)
		case *ast.BranchStmt:
			if s.Tok == token.CONTINUE || s.Tok == token.BREAK {
				m.leaveOut(s)
			}
		case *ast.ReturnStmt:
			m.returned(s)
		}
	}
}

func (m *mutator) leaveOut(s ast.Stmt) {
	m.wrap(s, fmt.Sprintf("if !mutant(%d) { ", m.add(m.text(s), "left out")), " }")
}

func (m *mutator) returned(s *ast.ReturnStmt) {
	if len(s.Results) != len(m.results) {
		return
	}
	last := len(s.Results) - 1
	fails := last > 0 && m.results[last] == "error" && !zero(s.Results[last])
	for i, x := range s.Results {
		if fails && i < last {
			continue // beside an error nobody looks at a result
		}
		instead := "*new(" + m.results[i] + ")"
		_, compared := x.(*ast.BinaryExpr)
		switch {
		case m.results[i] == "bool" && compared:
			continue
		case m.results[i] == "bool":
			instead = "!(" + m.text(x) + ")"
		case zero(x), m.isEmpty(x), m.text(x) == "err":
			continue // an error that is passed on: noticing that takes a store which fails at this very read
		}
		var all []string
		for k, y := range s.Results {
			if all = append(all, m.text(y)); k == i {
				all[k] = instead
			}
		}
		n := m.add(m.text(s), fmt.Sprintf("result %d is %s", i+1, instead))
		m.wrap(s, fmt.Sprintf("if mutant(%d) { return %s }; ", n, strings.Join(all, ", ")), "")
	}
}
