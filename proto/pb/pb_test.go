package pb_test

import (
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/tapweave/tapweave/proto/pb"
)

func TestCodeIsFresh(t *testing.T) {
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{".."}}}
	files, err := compiler.Compile(t.Context(), "tapweave.proto")
	if err != nil {
		t.Fatal(err)
	}
	want := protodesc.ToFileDescriptorProto(files[0])
	if got := protodesc.ToFileDescriptorProto(pb.File_tapweave_proto); !proto.Equal(got, want) {
		t.Error("package pb is not what proto/tapweave.proto says: run make generate")
	}
}
