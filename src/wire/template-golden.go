// Records template-golden.json: what Go's text/template makes of template-golden.txt. Run: go run template-golden.go
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Inner struct {
	A string
	B int
}

type Data struct {
	Name   string
	Empty  string
	Html   string
	Count  int
	Zero   int
	Neg    int
	Ratio  float64
	On     bool
	Off    bool
	Tags   []string
	None   []string
	Labels map[string]string
	Void   map[string]string
	Counts map[string]int
	Deep   map[string]map[string]string
	Inner  Inner
	Items  []Inner
	Gone   *Inner
	Any    any
	Nums   []int
}

func (d *Data) Label(name string) string { return d.Labels[name] }
func (d *Data) Upper() string            { return strings.ToUpper(d.Name) }

func toJSON(v any) string {
	buf := &bytes.Buffer{}
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return strings.TrimSpace(buf.String())
}

type result struct {
	Template string `json:"template"`
	Output   string `json:"output"`
	Error    string `json:"error,omitempty"`
}

func main() {
	data := &Data{
		Name: "web", Html: "<a & 'b'>", Count: 42, Neg: -7, Ratio: 1.5, On: true,
		Tags: []string{"x", "y", "z"}, Labels: map[string]string{"b": "2", "a": "1", "com.x": "3"},
		Counts: map[string]int{"one": 1}, Deep: map[string]map[string]string{"k": {"q": "v"}},
		Inner: Inner{"in", 3}, Items: []Inner{{"p", 1}, {"q", 2}}, Nums: []int{3, 1, 2},
	}
	funcs := template.FuncMap{
		"json":  toJSON,
		"split": strings.Split,
		"join":  strings.Join,
		"title": strings.Title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(source string, prefix, suffix int) string {
			if source == "" {
				return source
			}
			return strings.Repeat(" ", prefix) + source + strings.Repeat(" ", suffix)
		},
		"truncate": func(source string, length int) string {
			if len(source) < length {
				return source
			}
			return source[:length]
		},
	}
	text, err := os.ReadFile("template-golden.txt")
	if err != nil {
		panic(err)
	}
	var results []result
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		r := result{Template: strings.ReplaceAll(line, "⏎", "\n")}
		out := &bytes.Buffer{}
		t, err := template.New("").Funcs(funcs).Parse(r.Template)
		if err == nil {
			err = t.Execute(out, data)
		}
		r.Output = out.String()
		if err != nil {
			r.Error = err.Error()
		}
		results = append(results, r)
	}
	file, _ := os.Create("template-golden.json")
	enc := json.NewEncoder(file)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	_ = enc.Encode(results)
}
