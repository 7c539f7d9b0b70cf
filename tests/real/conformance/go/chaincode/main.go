// Command chaincode is the scenario chaincode on the official fabric-chaincode-go: chaincode SETTINGS.
// Twin of tests/unit/ledger/scenario_chaincode.py.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/hyperledger/fabric-chaincode-go/v2/pkg/cid"
	"github.com/hyperledger/fabric-chaincode-go/v2/shim"
	"github.com/hyperledger/fabric-protos-go-apiv2/peer"
)

type settings struct {
	ChaincodeID string `json:"chaincode_id"`
	Address     string `json:"address"`
	Key         string `json:"key"`
	Certificate string `json:"certificate"`
	ClientCA    string `json:"client_ca"`
}

type refused struct {
	status  int32
	message string
}

func (r *refused) Error() string { return r.message }

type function func(stub shim.ChaincodeStubInterface, args []string) ([]byte, error)

type scenario struct{}

var functions = map[string]function{
	"put": put, "get": get, "add": add, "delete": remove, "many": many, "manyValues": manyValues,
	"range": ranged, "page": page, "history": history, "emit": emit, "refuse": refuse,
	"putPrivate": putPrivate, "getPrivate": getPrivate, "privateHash": privateHash, "rangePrivate": rangePrivate,
	"attribute": attribute, "transient": transient, "setPolicy": setPolicy,
}

func (scenario) Init(shim.ChaincodeStubInterface) *peer.Response { return shim.Success(nil) }

func (scenario) Invoke(stub shim.ChaincodeStubInterface) *peer.Response {
	name, args := stub.GetFunctionAndParameters()
	if name == "call" {
		return call(stub, args)
	}
	chosen, known := functions[name]
	if !known {
		return &peer.Response{Status: 404, Message: "no function " + name}
	}
	result, err := chosen(stub, args)
	if err != nil {
		status := int32(500)
		if one, ok := err.(*refused); ok {
			status = one.status
		}
		return &peer.Response{Status: status, Message: err.Error()}
	}
	return shim.Success(result)
}

func call(stub shim.ChaincodeStubInterface, args []string) *peer.Response {
	passed := [][]byte{}
	for _, one := range args[1:] {
		passed = append(passed, []byte(one))
	}
	answer := stub.InvokeChaincode(args[0], passed, "")
	return &peer.Response{Status: answer.GetStatus(), Message: answer.GetMessage(), Payload: answer.GetPayload()}
}

func put(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	return []byte(args[1]), stub.PutState(args[0], []byte(args[1]))
}

func get(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	value, err := stub.GetState(args[0])
	if err == nil && len(value) == 0 {
		err = &refused{404, "no value under " + args[0]}
	}
	return value, err
}

func add(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	value, err := stub.GetState(args[0])
	if err != nil {
		return nil, err
	}
	before, _ := strconv.Atoi(string(value)) // nothing counts as 0
	amount, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	total := []byte(strconv.Itoa(before + amount))
	return total, stub.PutState(args[0], total)
}

func remove(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	return nil, stub.DelState(args[0])
}

func many(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	keys, err := keysOf(args)
	if err != nil {
		return nil, err
	}
	stub.StartWriteBatch()
	for index, key := range keys {
		if err := stub.PutState(key, []byte(strconv.Itoa(index))); err != nil {
			return nil, err
		}
	}
	return []byte(args[1]), stub.FinishWriteBatch()
}

func manyValues(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	keys, err := keysOf(args)
	if err != nil {
		return nil, err
	}
	values, err := stub.GetMultipleStates(keys...)
	if err != nil {
		return nil, err
	}
	found := []string{}
	for _, value := range values {
		found = append(found, string(value))
	}
	return json.Marshal(found)
}

func keysOf(args []string) ([]string, error) {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	keys := []string{}
	for index := range count {
		keys = append(keys, fmt.Sprintf("%s%04d", args[0], index))
	}
	return keys, nil
}

func ranged(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	iterator, err := stub.GetStateByRange(args[0], args[1])
	if err != nil {
		return nil, err
	}
	found, err := entries(iterator)
	if err != nil {
		return nil, err
	}
	return json.Marshal(found)
}

func entries(iterator shim.StateQueryIteratorInterface) ([][2]string, error) {
	defer iterator.Close()
	found := [][2]string{}
	for iterator.HasNext() {
		item, err := iterator.Next()
		if err != nil {
			return nil, err
		}
		found = append(found, [2]string{item.GetKey(), string(item.GetValue())})
	}
	return found, nil
}

func page(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, err
	}
	iterator, about, err := stub.GetStateByRangeWithPagination(args[0], args[1], int32(size), args[3])
	if err != nil {
		return nil, err
	}
	found, err := entries(iterator)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"entries": found, "bookmark": about.GetBookmark()})
}

func history(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	iterator, err := stub.GetHistoryForKey(args[0])
	if err != nil {
		return nil, err
	}
	defer iterator.Close()
	found := [][]any{}
	for iterator.HasNext() {
		item, err := iterator.Next()
		if err != nil {
			return nil, err
		}
		found = append(found, []any{item.GetTxId(), string(item.GetValue()), item.GetIsDelete()})
	}
	return json.Marshal(found)
}

func emit(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	if err := stub.PutState(args[2], []byte(args[1])); err != nil {
		return nil, err
	}
	return nil, stub.SetEvent(args[0], []byte(args[1]))
}

func refuse(_ shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	return nil, &refused{400, args[0]}
}

func putPrivate(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	given, err := stub.GetTransient()
	if err != nil {
		return nil, err
	}
	return nil, stub.PutPrivateData(args[0], args[1], given["value"])
}

func getPrivate(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	return stub.GetPrivateData(args[0], args[1])
}

func privateHash(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	value, err := stub.GetPrivateDataHash(args[0], args[1])
	return []byte(hex.EncodeToString(value)), err
}

func rangePrivate(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	iterator, err := stub.GetPrivateDataByRange(args[0], args[1], args[2])
	if err != nil {
		return nil, err
	}
	found, err := entries(iterator)
	if err != nil {
		return nil, err
	}
	return json.Marshal(found)
}

func attribute(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	value, _, err := cid.GetAttributeValue(stub, args[0])
	return []byte(value), err
}

func transient(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	given, err := stub.GetTransient()
	return given[args[0]], err
}

func setPolicy(stub shim.ChaincodeStubInterface, args []string) ([]byte, error) {
	given, err := stub.GetTransient()
	if err != nil {
		return nil, err
	}
	policy, err := base64.StdEncoding.DecodeString(string(given["policy"]))
	if err != nil {
		return nil, err
	}
	return nil, stub.SetStateValidationParameter(args[0], policy)
}

func main() {
	var own settings
	must(json.Unmarshal(read(os.Args[1]), &own))
	server := &shim.ChaincodeServer{
		CCID: own.ChaincodeID, Address: own.Address, CC: scenario{},
		TLSProps: shim.TLSProperties{Key: read(own.Key), Cert: read(own.Certificate), ClientCACerts: read(own.ClientCA)},
	}
	must(server.Start())
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	must(err)
	return content
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
